"""Probabilistic knowledge transfer (Passalis and Tefas, 2018, arXiv:1803.10837)."""

from typing import ClassVar, Literal

import jax.numpy as jnp
from jaxtyping import Array, Float

from kdjax.losses.base import DistillationLoss, require_teacher, unit
from kdjax.types import Batch, Outputs

GUARD = 1e-7
"""The authors' addition to both probabilities under the logarithm."""


class PKT(DistillationLoss):
    """The neighbours of an example are those it has for the teacher.

    `t log((t + 1e-7) / (s + 1e-7))` of all pairs of examples, where the rows of `s` and `t` are
    `(1 + cosine) / 2` of the embeddings, divided by their sum: the probability that one example
    picks the other as its neighbour.

    - `variant="code"`: the mean over all pairs, each example being a neighbour of itself, as in
      the authors' code and every benchmark;
    - `variant="paper"`: the sum over pairs of different examples, which alone share the
      probability. The paper has no 1e-7.

    Usual weight: 30000, of the code's mean.
    """

    variant: Literal["code", "paper"] = "code"
    """Which of the two published forms."""

    whole_batch: ClassVar[bool] = True

    def __call__(self, student: Outputs, teacher: Outputs | None, batch: Batch) -> Float[Array, ""]:
        """Nats, of the whole batch."""
        teacher = require_teacher(self, teacher)
        s, t = self._neighbours(student.embedding), self._neighbours(teacher.embedding)
        # The gap sums to zero. Put beside each term it makes them all small where s is near t, so
        # that little is rounded away.
        gap = s - t
        terms = gap - t * log_ratio(s + GUARD, t + GUARD)
        return terms.mean() if self.variant == "code" else terms.sum()

    def _neighbours(self, embedding: Float[Array, "b d"]) -> Float[Array, "b b"]:
        directions = unit(embedding.astype("float32"))
        cosine = jnp.matmul(directions, directions.T, precision="highest")
        likeness = (1 + jnp.maximum(cosine, -1)) / 2
        if self.variant == "paper":
            likeness *= 1 - jnp.eye(len(likeness))
        total = likeness.sum(axis=-1, keepdims=True)
        return likeness / jnp.where(total > 0, total, 1.0)


def log_ratio(a: Array, b: Array) -> Array:
    """`log(a / b)`, exact where they are nearly equal and where one is next to nothing."""
    # At a = b each half has half of the slope, as jnp.maximum has it.
    above, below = jnp.maximum(a - b, 0), jnp.maximum(b - a, 0)
    return jnp.log1p(above / b) - jnp.log1p(below / a)
