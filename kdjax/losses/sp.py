"""Similarity-preserving distillation (Tung and Mori, 2019, arXiv:1907.09682)."""

from typing import ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from kdjax.losses.base import DistillationLoss, Tap, require_teacher, unit
from kdjax.losses.stages import maps, pair_stage
from kdjax.types import Batch, Outputs


class SP(DistillationLoss):
    """`mean over b² of (rownorm(G_s) - rownorm(G_t))²`, with `G = vec(F) vec(F)ᵀ`.

    Which examples of the global batch look alike, by the maps of one stage; rows have length one.
    Maps may differ in every size. Usual weight: 3000.
    """

    stage: str = ""
    """Stage of the student; empty: its last."""
    teacher_stage: str = ""
    """Stage of the teacher; empty: of the same name, or the one that matches its last."""

    whole_batch: ClassVar[bool] = True

    def taps(self, student: Outputs, teacher: Outputs) -> tuple[Tap, ...]:
        """The one pair."""
        return (pair_stage(self, student, teacher, self.stage, self.teacher_stage),)

    def __call__(self, student: Outputs, teacher: Outputs | None, batch: Batch) -> Float[Array, ""]:
        """Dimensionless."""
        teacher = require_teacher(self, teacher)
        (tap,) = self.taps(student, teacher)
        g_s, g_t = (_similarities(f) for f in maps(student, teacher, tap))
        return jnp.square(g_s - g_t).mean()


def _similarities(features: Array) -> Float[Array, "b b"]:
    flat = features.reshape(features.shape[0], -1)
    # The largest activation goes first, so that no product leaves float32; it cancels in the norm.
    peak = jax.lax.stop_gradient(jnp.abs(flat).max())
    flat = flat / jnp.where(peak > 0, peak, 1.0)
    return unit(jnp.matmul(flat, flat.T, precision="highest"))
