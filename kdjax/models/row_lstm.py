"""A recurrent image classifier: LSTMs (Hochreiter and Schmidhuber, 1997) over rows and columns.

Reading an image row by row is the sequential task of Le et al., 2015, arXiv:1504.00941, in its
shorter form.
"""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array

from kdjax.models.base import VisionModel, scaled_size
from kdjax.types import Outputs


class RowLSTM(VisionModel):
    """One LSTM reads the image row by row, another column by column; a dense layer classifies.

    The embedding is the last state of both, side by side. Without convolutions and batch norm it
    sees an image quite differently from a CNN that learns from its answers.
    """

    hidden: int = 128
    """Units of each LSTM."""

    @nn.compact
    def __call__(self, images: Array, train: bool = False) -> Outputs:
        """Features: states after each row, `[b, H, 1, hidden]`, and column, `[b, 1, W, hidden]`."""
        x = self.pixels(images)
        rows = self._read(x, "rows")
        columns = self._read(x.swapaxes(1, 2), "columns")
        features = {"stage1": rows[:, :, None], "stage2": columns[:, None]}
        embedding = jnp.concatenate([rows[:, -1], columns[:, -1]], axis=-1)
        logits = nn.Dense(self.num_classes, dtype=self.dtype, name="classifier")(embedding)
        return Outputs(logits.astype(jnp.float32), features, embedding)

    def _read(self, x: Array, name: str) -> Array:
        """The states `[b, t, hidden]` after each slice of `[b, t, s, C]`."""
        cell = nn.OptimizedLSTMCell(self.hidden, dtype=self.dtype, name=name)
        slices = x.reshape(*x.shape[:2], x.shape[2] * x.shape[3])
        states: Any = nn.RNN(cell)(slices)
        # What the cell remembers stays float32 in any precision, and with it the states.
        return states.astype(self.dtype)

    def scaled(self, width: float, depth: float) -> "RowLSTM":
        """Fewer units; one layer is the least depth."""
        return self.clone(hidden=scaled_size(self.hidden, width))


ROW_LSTMS = {"row_lstm": RowLSTM()}
