"""A small network for small images."""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array

from kdjax.models.base import Naming, VisionModel, renaming, scaled_size
from kdjax.models.kernels import max_pool
from kdjax.types import Outputs


class SmallCNN(VisionModel):
    """Convolution, batch norm, ReLU and 2x2 max-pooling per stage, then one hidden layer."""

    widths: tuple[int, ...] = (16, 32)
    """Channels of each stage; each stage halves the resolution."""
    hidden: int = 256
    """Units of the hidden layer."""

    @nn.compact
    def __call__(self, images: Array, train: bool = False) -> Outputs:
        """Features `stage1`, `stage2`, … are taken before pooling."""
        x = self.pixels(images)
        height, width = x.shape[1:3]
        if min(height, width) >> len(self.widths) == 0:
            raise ValueError(
                f"SmallCNN.widths: {len(self.widths)} stages leave nothing of {height}x{width} "
                f"pixels; give at most {min(height, width).bit_length() - 1}."
            )
        features, before = {}, {}
        for i, channels in enumerate(self.widths, start=1):
            x = self.conv(channels, 3, name=f"conv{i}")(x)
            y = self.batch_norm(train, name=f"bn{i}")(x)
            x = nn.relu(y)
            features[f"stage{i}"], before[f"stage{i}"] = x, y
            x = max_pool(x, 2)
        # A dense layer over (H, W, C) keeps the channel axis visible to whoever cuts it.
        x = nn.DenseGeneral(self.hidden, axis=(-3, -2, -1), dtype=self.dtype, name="dense")(x)
        x = nn.relu(x)
        logits = nn.Dense(self.num_classes, dtype=self.dtype, name="classifier")(x)
        return Outputs(logits.astype(jnp.float32), features, x, before)

    def torch_names(self) -> tuple[Naming, ...]:
        """Our own names: it is in no published file."""
        return (renaming(),)

    def scaled(self, width: float, depth: float) -> "SmallCNN":
        """All stages and the hidden layer narrower; one convolution a stage is the least depth."""
        return self.clone(
            widths=tuple(scaled_size(channels, width) for channels in self.widths),
            hidden=scaled_size(self.hidden, width),
        )


SMALL_CNNS = {"small_cnn": SmallCNN(), "tiny_cnn": SmallCNN(widths=(4, 8), hidden=32)}
