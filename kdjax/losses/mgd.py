"""Masked generative distillation (Yang et al., 2022, arXiv:2205.01529)."""

from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from kdjax.checks import require
from kdjax.losses.stages import StageLoss, pool_to_common
from kdjax.types import Batch, Outputs


class MGD(StageLoss):
    """Generate the teacher's map from what a random mask leaves of the student's.

    `Σ (G(M · F_s) - F_t)²` over pixels and channels of one stage. Where the numbers of channels
    differ, a 1x1 convolution first brings the student's map to the teacher's; G is two 3x3
    convolutions with a ReLU between them. The mask M is new in every step, 0 with probability
    `masked` and otherwise 1:

    - `variant="code"`: one value for each example and channel, as in the authors' code for
      classification;
    - `variant="paper"`: one for each example and pixel, as in the paper and in their code for
      detection and segmentation.

    Maps of different sizes: the larger is average-pooled to the smaller.

    Usual weight: 7e-5, on ImageNet.
    """

    masked: float = 0.15
    """Share of the student's map that is masked, in [0, 1)."""
    variant: Literal["code", "paper"] = "code"
    """Whether channels or pixels are masked."""

    def check(self) -> None:
        """Something of the map is left."""
        require("masked", self.masked, 0 <= self.masked < 1, "in [0, 1)")

    @nn.compact
    def __call__(
        self, student: Outputs, teacher: Outputs | None, batch: Batch
    ) -> Float[Array, " b"]:
        """Squared activation, per example."""
        f_s, f_t = pool_to_common(*self.maps(student, teacher))
        width = f_t.shape[-1]
        if f_s.shape[-1] != width:
            f_s = nn.Conv(width, (1, 1), name="align")(f_s)
        x = nn.Conv(width, (3, 3), padding=1, name="generator_conv1")(f_s * self._mask(f_s, batch))
        x = nn.Conv(width, (3, 3), padding=1, name="generator_conv2")(nn.relu(x))
        return jnp.square(x - f_t).sum(axis=(1, 2, 3))

    def _mask(self, x: Array, batch: Batch) -> Array:
        shape = (1, 1, x.shape[3]) if self.variant == "code" else (*x.shape[1:3], 1)
        draw = jax.vmap(lambda key: jax.random.uniform(key, shape))
        return draw(self.example_keys(batch)) >= self.masked
