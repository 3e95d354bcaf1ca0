"""Relational knowledge distillation (Park et al., 2019, arXiv:1904.05068)."""

from typing import ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from kdjax.checks import require
from kdjax.losses.base import DistillationLoss, require_teacher, safe_sqrt, unit
from kdjax.types import Batch, Outputs


class RKD(DistillationLoss):
    """`distance · mean huber(d_s - d_t) + angle · mean huber(cos_s - cos_t)`, of the embeddings.

    `huber(x)` is `x²/2` up to one and `|x| - 1/2` beyond.

    - `d_ij = ||e_i - e_j||`, divided by the mean of those that are positive, of student and teacher
      separately; its huber is averaged over all `b²` pairs.
    - `cos_ijk` is the cosine of the angle at `e_i` between `e_j` and `e_k`, zero where one of them
      is `e_i`; its huber is averaged over all `b³` triples.

    The paper writes sums over pairs and triples of different examples where the authors' code has
    these means, for which the weights are meant. In the code two equal embeddings lie 1e-6 apart,
    a positive distance; here it is zero, and the mean leaves it out.

    Usual weight: 1.
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
        """Dimensionless, of the whole batch."""
        teacher = require_teacher(self, teacher)
        e_s, e_t = figure(student.embedding), figure(teacher.embedding)

        # One example after the other, forgotten and done again for the gradient: all angles at
        # once would be b³ numbers, and all differences b² times the width.
        @jax.checkpoint
        def seen_from(place: tuple[Array, Array]) -> tuple[Array, Array, Array]:
            d_s, d_t = e_s - place[0], e_t - place[1]
            return length(d_s), length(d_t), huber(cosines(d_s) - cosines(d_t)).mean()

        l_s, l_t, angles = jax.lax.map(seen_from, (e_s, e_t))
        distances = huber(over_mean(l_s) - over_mean(l_t)).mean()
        return self.distance * distances + self.angle * angles.mean()


def figure(embedding: Float[Array, "b d"]) -> Float[Array, "b d"]:
    """The embeddings but for their place and size, which no relation sees and rounding does."""
    points = embedding.astype("float32")
    return unit((points - points.mean(axis=0)).ravel()).reshape(points.shape)


def length(x: Float[Array, "b d"]) -> Float[Array, " b"]:
    """The Euclidean length of each row."""
    return safe_sqrt(jnp.square(x).sum(axis=-1))


def cosines(x: Float[Array, "b d"]) -> Float[Array, "b b"]:
    """Of the angles between all rows."""
    directions = unit(x)
    return jnp.matmul(directions, directions.T, precision="highest")


def over_mean(distances: Float[Array, "b b"]) -> Float[Array, "b b"]:
    """In units of the mean of the positive ones."""
    total, count = distances.sum(), (distances > 0).sum()
    return distances * jnp.where(count > 0, count / jnp.where(count > 0, total, 1.0), 0.0)


def huber(x: Array) -> Array:
    """Half the square up to one, and linear beyond."""
    size = jnp.abs(x)
    bounded = jnp.minimum(size, 1.0)
    return bounded * (size - bounded / 2)
