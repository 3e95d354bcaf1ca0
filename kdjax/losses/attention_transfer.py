"""Attention transfer (Zagoruyko and Komodakis, 2017, arXiv:1612.03928)."""

from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from kdjax.checks import require
from kdjax.losses.base import require_teacher, safe_sqrt, unit
from kdjax.losses.stages import StagesLoss, maps, pool_to_common
from kdjax.types import Batch, Outputs


class AttentionTransfer(StagesLoss):
    """Look where the teacher looks.

    Per stage, with `q(F) = normalise(vec(mean_C |F|^p))` over the pixels:

    - `variant="code"`: `mean((q(F_s) - q(F_t))²)`, what the authors' code and every benchmark use;
    - `variant="paper"`: `||q(F_s) - q(F_t)||₂`.

    Summed over stages. Maps of different sizes: the larger is average-pooled to the smaller.
    """

    p: float = 2.0
    """Power of the activations."""
    variant: Literal["code", "paper"] = "code"
    """Which of the two published forms."""

    def check(self) -> None:
        """Below one the slope of `|F|^p` is infinite at the zeros that every ReLU leaves."""
        require("p", self.p, self.p >= 1, "at least 1")

    def __call__(
        self, student: Outputs, teacher: Outputs | None, batch: Batch
    ) -> Float[Array, " b"]:
        """Dimensionless, per example."""
        teacher = require_teacher(self, teacher)
        total = jnp.zeros(student.logits.shape[0])
        for tap in self.taps(student, teacher):
            f_s, f_t = pool_to_common(*maps(student, teacher, tap))
            gap = jnp.square(attention(f_s, self.p) - attention(f_t, self.p))
            if self.variant == "code":
                total += gap.mean(axis=-1)
            else:
                total += safe_sqrt(gap.sum(axis=-1))
        return total


def attention(features: Float[Array, "b h w c"], p: float) -> Float[Array, "b pixels"]:
    """`normalise(vec(mean_C |F|^p))`."""
    # Scaling by the largest activation first keeps the power finite; it cancels in the norm.
    magnitude = jnp.abs(features)
    peak = magnitude.max(axis=(1, 2, 3), keepdims=True)
    magnitude = magnitude / jax.lax.stop_gradient(jnp.where(peak > 0, peak, 1.0))
    return unit((magnitude**p).mean(axis=-1).reshape(features.shape[0], -1))
