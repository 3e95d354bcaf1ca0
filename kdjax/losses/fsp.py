"""A gift from knowledge distillation: the flow of solution procedure (Yim et al., CVPR 2017)."""

from itertools import pairwise
from typing import Literal

import jax.numpy as jnp
from jaxtyping import Array, Float

from kdjax.losses.base import require_teacher
from kdjax.losses.stages import ConsecutiveStagesLoss, maps
from kdjax.models.base import adaptive_pool
from kdjax.types import Batch, Outputs


class FSP(ConsecutiveStagesLoss):
    """How a stage follows from the one before: `G = F_iᵀ F_{i+1} / pixels`, channels by channels.

    Summed over consecutive stages; the larger map of the two is pooled to the smaller:

    - `variant="code"`: average-pooled, `mean((G_s - G_t)²)`, what the benchmarks use;
    - `variant="paper"`: max-pooled, `||G_s - G_t||²`.

    Student and teacher need equal widths. It is the objective of a first phase that leaves out the
    classifier, for 30 epochs with weight 1 in the benchmarks, which begin with the stem.
    """

    variant: Literal["code", "paper"] = "code"
    """Which of the two published forms."""

    def __call__(
        self, student: Outputs, teacher: Outputs | None, batch: Batch
    ) -> Float[Array, " b"]:
        """Fourth power of an activation, per example."""
        teacher = require_teacher(self, teacher)
        pairs = [maps(student, teacher, tap) for tap in self.taps(student, teacher)]
        total = jnp.zeros(student.logits.shape[0])
        for (bottom_s, bottom_t), (top_s, top_t) in pairwise(pairs):
            gap = jnp.square(self._flow(bottom_s, top_s) - self._flow(bottom_t, top_t))
            axes = (1, 2)
            total += gap.mean(axis=axes) if self.variant == "code" else gap.sum(axis=axes)
        return total

    def _flow(self, bottom: Array, top: Array) -> Array:
        height, width = (min(bottom.shape[axis], top.shape[axis]) for axis in (1, 2))
        reduce = jnp.mean if self.variant == "code" else jnp.max
        bottom, top = (adaptive_pool(f, height, width, reduce) for f in (bottom, top))
        product = jnp.einsum("bhwc,bhwd->bcd", bottom, top, precision="highest")
        return product / (height * width)
