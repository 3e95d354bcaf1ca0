"""Probabilistic knowledge transfer (Passalis and Tefas, 2018, arXiv:1803.10837)."""

from typing import ClassVar

import jax.numpy as jnp
from jaxtyping import Array, Float

from kdjax.losses.base import DistillationLoss, require_teacher, unit
from kdjax.types import Batch, Outputs

EPSILON = 1e-7
"""The authors' guard of both probabilities in the logarithm."""


class PKT(DistillationLoss):
    """`mean over b² of t log(t / s)`: who is near whom, as probabilities.

    `s` and `t` are the rows of `(cosine + 1) / 2` between the embeddings of the global batch,
    divided by their sums. Usual weight: 30000.
    """

    whole_batch: ClassVar[bool] = True

    def __call__(self, student: Outputs, teacher: Outputs | None, batch: Batch) -> Float[Array, ""]:
        """Nats, over the size of the batch."""
        teacher = require_teacher(self, teacher)
        s, t = (_neighbours(out.embedding.astype("float32")) for out in (student, teacher))
        return jnp.mean(t * (jnp.log(t + EPSILON) - jnp.log(s + EPSILON)))


def _neighbours(embedding: Array) -> Float[Array, "b b"]:
    direction = unit(embedding)
    near = (jnp.matmul(direction, direction.T, precision="highest") + 1) / 2
    return near / near.sum(axis=-1, keepdims=True)
