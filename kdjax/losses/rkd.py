"""Relational knowledge distillation (Park et al., 2019, arXiv:1904.05068)."""

from collections.abc import Callable
from functools import partial
from typing import ClassVar

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from kdjax.losses.base import DistillationLoss, require, require_teacher, safe_sqrt, unit
from kdjax.types import Batch, Outputs

TOGETHER = 8
"""Examples that are looked from at a time."""


class RKD(DistillationLoss):
    """`distance · mean huber(d_s - d_t) + angle · mean huber(cos_s - cos_t)`.

    Of the embeddings of the global batch: `d` are the distances of all pairs over the mean of those
    that are positive, `cos` the cosines at the first of three examples, for all triples, and huber
    is `x²/2` up to 1 and `|x| - 1/2` beyond. Usual weight: 1.

    There are b³ triples; they are looked at from a few examples at a time, forwards and backwards,
    so that memory grows with b² only.
    """

    distance: float = 25.0
    """Weight of the distances."""
    angle: float = 50.0
    """Weight of the angles."""

    whole_batch: ClassVar[bool] = True

    def check(self) -> None:
        """Weights are not negative."""
        require("distance", self.distance, self.distance >= 0, ">= 0")
        require("angle", self.angle, self.angle >= 0, ">= 0")

    def __call__(self, student: Outputs, teacher: Outputs | None, batch: Batch) -> Float[Array, ""]:
        """Dimensionless."""
        teacher = require_teacher(self, teacher)
        both = tuple(out.embedding.astype("float32") for out in (student, teacher))
        pairs = optax.huber_loss(*(_relative(_from_each(_distances, e)) for e in both)).mean()
        triples = _from_each(_angle_gaps, *both).mean() / both[0].shape[0] ** 2
        return self.distance * pairs + self.angle * triples


def _from_each(look: Callable[..., Array], *embeddings: Array) -> Array:
    """`look(points, from)` from every example; what it needed is computed again backwards."""
    looked = jax.checkpoint(partial(look, *embeddings))
    return jax.lax.map(looked, embeddings, batch_size=min(TOGETHER, embeddings[0].shape[0]))


def _distances(points: Float[Array, "b d"], here: tuple[Array]) -> Float[Array, " b"]:
    return safe_sqrt(jnp.square(points - here[0]).sum(axis=-1))


def _relative(distances: Float[Array, "b b"]) -> Float[Array, "b b"]:
    count = jnp.sum(distances > 0)
    mean = distances.sum() / jnp.maximum(count, 1)
    return distances / jnp.where(count > 0, mean, 1.0)


def _angle_gaps(ours: Array, theirs: Array, here: tuple[Array, Array]) -> Float[Array, ""]:
    """The sum over all pairs of others, as seen from one example."""
    seen = (unit(points - origin) for points, origin in zip((ours, theirs), here, strict=True))
    cosines = (jnp.matmul(x, x.T, precision="highest") for x in seen)
    return optax.huber_loss(*cosines).sum()
