"""Attention transfer (Zagoruyko and Komodakis, 2017, arXiv:1612.03928)."""

from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from kdjax.losses.base import DistillationLoss, require_stages, require_teacher, safe_sqrt
from kdjax.models.base import adaptive_pool
from kdjax.types import Batch, Outputs


class AttentionTransfer(DistillationLoss):
    """Look where the teacher looks.

    Per stage, with `q(F) = normalise(vec(mean_C |F|^p))` over the pixels:

    - `variant="code"`: `mean((q(F_s) - q(F_t))²)`, what the authors' code and every benchmark use;
    - `variant="paper"`: `||q(F_s) - q(F_t)||₂`.

    Summed over stages. Maps of different sizes: the larger is average-pooled to the smaller.
    """

    stages: tuple[str, ...] = ("stage1", "stage2")
    """Stages of the student."""
    teacher_stages: tuple[str, ...] = ()
    """Stages of the teacher, in the same order; empty means the same names."""
    p: float = 2.0
    """Power of the activations."""
    variant: Literal["code", "paper"] = "code"
    """Which of the two published forms."""

    def taps(self) -> tuple[tuple[str, str], ...]:
        """Stages in pairs; as many of the teacher as of the student."""
        other = self.teacher_stages or self.stages
        if len(other) != len(self.stages):
            raise ValueError(
                f"AttentionTransfer: {len(self.stages)} student stages but {len(other)} teacher "
                "stages; give one teacher stage for each."
            )
        return tuple(zip(self.stages, other, strict=True))

    def __call__(
        self, student: Outputs, teacher: Outputs | None, batch: Batch
    ) -> Float[Array, " b"]:
        """Dimensionless, per example."""
        teacher = require_teacher(self, teacher)
        total = jnp.zeros(student.logits.shape[0])
        for ours, theirs in self.taps():
            f_s = require_stages(self, "student", ours, student)
            f_t = require_stages(self, "teacher", theirs, teacher)
            f_s, f_t = pool_to_common(f_s, f_t)
            gap = jnp.square(self._attention(f_s) - self._attention(f_t))
            if self.variant == "code":
                total += gap.mean(axis=-1)
            else:
                total += safe_sqrt(gap.sum(axis=-1))
        return total

    def _attention(self, features: Array) -> Array:
        # Scaling by the largest activation first keeps the power finite; it cancels in the norm.
        magnitude = jnp.abs(features)
        peak = magnitude.max(axis=(1, 2, 3), keepdims=True)
        magnitude = magnitude / jax.lax.stop_gradient(jnp.where(peak > 0, peak, 1.0))
        q = (magnitude**self.p).mean(axis=-1).reshape(features.shape[0], -1)
        norm = safe_sqrt(jnp.square(q).sum(axis=-1, keepdims=True))
        return q / jnp.where(norm > 0, norm, 1.0)


def pool_to_common(a: Array, b: Array) -> tuple[Array, Array]:
    """Average-pool the larger of two `[b, H, W, C]` maps to the size of the smaller."""
    height, width = min(a.shape[1], b.shape[1]), min(a.shape[2], b.shape[2])
    return adaptive_pool(a, height, width), adaptive_pool(b, height, width)
