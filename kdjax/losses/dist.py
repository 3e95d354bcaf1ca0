"""Distillation from a stronger teacher (Huang et al., 2022, arXiv:2205.10536)."""

from typing import ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from kdjax.checks import require
from kdjax.losses.base import (
    DistillationLoss,
    require_teacher,
    require_temperature,
    safe_sqrt,
    unit,
)
from kdjax.losses.ramp import Ramp, at
from kdjax.types import Batch, Outputs

GUARD = 1e-8
"""The authors' addition to the denominator, which stills what hardly varies."""


class DIST(DistillationLoss):
    """`T² (beta · inter + gamma · intra)` of the probabilities `p = softmax(z / T)`.

    - inter: `1 - r(p_s, p_t)` along the classes of an example, averaged over examples: which
      classes it resembles;
    - intra: `1 - r` along the examples for a class, averaged over classes: which examples
      resemble the class.

    `r` is Pearson's correlation, with 1e-8 added to the product of the lengths of the two centred
    vectors. It does not see how sure a network is, so the student need not be as sure as a strong
    teacher. Where a temperature moves within a batch, intra is multiplied by the mean of its
    squares.

    Usual weight: 1; at T = 1 for ImageNet.
    """

    beta: float = 2.0
    """Weight of the relation between the classes of an example."""
    gamma: float = 2.0
    """Weight of the relation between the examples of a class."""
    temperature: float | Ramp = 4.0
    """Divides both logits; positive."""

    whole_batch: ClassVar[bool] = True

    def check(self) -> None:
        """Weights are not negative, the temperature is positive."""
        require("beta", self.beta, self.beta >= 0, ">= 0")
        require("gamma", self.gamma, self.gamma >= 0, ">= 0")
        require_temperature(self.temperature)

    def __call__(self, student: Outputs, teacher: Outputs | None, batch: Batch) -> Float[Array, ""]:
        """Dimensionless, times T², of the whole batch."""
        teacher = require_teacher(self, teacher)
        temperature = at(self.temperature, batch.epoch)
        p_s = jax.nn.softmax(student.logits / temperature)
        p_t = jax.nn.softmax(teacher.logits / temperature)
        squared = jnp.ravel(temperature**2)
        inter = jnp.mean(squared * unlike(p_s, p_t))
        intra = jnp.mean(squared) * jnp.mean(unlike(p_s.T, p_t.T))
        return self.beta * inter + self.gamma * intra


def unlike(a: Float[Array, "n m"], b: Float[Array, "n m"]) -> Float[Array, " n"]:
    """`1 - <a, b> / (|a| |b| + 1e-8)` of centred rows."""
    a, b = a - a.mean(axis=-1, keepdims=True), b - b.mean(axis=-1, keepdims=True)
    product = _length(a) * _length(b)
    # One less a number near one would be rounding: `1 - <u, v>` is half of `|u - v|²`.
    apart = jnp.square(unit(a) - unit(b)).sum(axis=-1) / 2
    return (product * apart + GUARD) / (product + GUARD)


def _length(x: Array) -> Array:
    return safe_sqrt(jnp.square(x).sum(axis=-1))
