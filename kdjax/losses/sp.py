"""Similarity-preserving distillation (Tung and Mori, 2019, arXiv:1907.09682)."""

from typing import ClassVar

import jax.numpy as jnp
from jaxtyping import Array, Float

from kdjax.losses.base import unit
from kdjax.losses.stages import StageLoss
from kdjax.types import Batch, Outputs


class SP(StageLoss):
    """What the teacher finds alike, the student finds alike.

    `mean((G_s - G_t)²)` over all pairs of examples, where the rows of `G` are those of
    `vec(F) vec(F)ᵀ`, divided by their Euclidean length: how much an example's map resembles that
    of every other. The maps may be of any two sizes.

    Usual weight: 3000.
    """

    whole_batch: ClassVar[bool] = True

    def __call__(self, student: Outputs, teacher: Outputs | None, batch: Batch) -> Float[Array, ""]:
        """Dimensionless, of the whole batch."""
        f_s, f_t = self.maps(student, teacher)
        return jnp.square(similarities(f_s) - similarities(f_t)).mean()


def similarities(features: Float[Array, "b h w c"]) -> Float[Array, "b b"]:
    """Of each example to every other, as rows of length one."""
    # A factor of the whole batch cancels in the rows, and keeps the products finite.
    vectors = unit(features.ravel()).reshape(features.shape[0], -1)
    return unit(jnp.matmul(vectors, vectors.T, precision="highest"))
