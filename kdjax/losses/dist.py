"""Distillation from a stronger teacher (Huang et al., 2022, arXiv:2205.10536)."""

from typing import ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from kdjax.losses.base import (
    DistillationLoss,
    require,
    require_teacher,
    require_temperature,
    unit,
)
from kdjax.losses.ramp import Ramp, at
from kdjax.types import Batch, Outputs


class DIST(DistillationLoss):
    """`T² (beta inter + gamma intra)`: probabilities need only be correlated with the teacher's.

    With `p = softmax(z / T)` and Pearson's correlation r,

    - inter: the mean over examples of `1 - r` along the classes;
    - intra: the mean over classes of `1 - r` along the examples of the global batch.

    What does not vary has no correlation: r is 0. Usual weight: 1.
    """

    beta: float = 2.0
    """Weight of inter."""
    gamma: float = 2.0
    """Weight of intra."""
    temperature: float | Ramp = 4.0
    """Divides both logits; positive. The authors have 1 for ImageNet."""

    whole_batch: ClassVar[bool] = True

    def check(self) -> None:
        """Weights are not negative, the temperature is positive."""
        require("beta", self.beta, self.beta >= 0, ">= 0")
        require("gamma", self.gamma, self.gamma >= 0, ">= 0")
        require_temperature(self.temperature)

    def __call__(self, student: Outputs, teacher: Outputs | None, batch: Batch) -> Float[Array, ""]:
        """Dimensionless, times T²."""
        teacher = require_teacher(self, teacher)
        temperature = jnp.asarray(at(self.temperature, batch.epoch))
        p_s, p_t = (jax.nn.softmax(out.logits / temperature) for out in (student, teacher))
        inter = jnp.mean(jnp.ravel(temperature**2) * (1 - _correlation(p_s, p_t)))
        intra = jnp.mean(temperature**2) * jnp.mean(1 - _correlation(p_s.T, p_t.T))
        return self.beta * inter + self.gamma * intra


def _correlation(a: Float[Array, "n k"], b: Float[Array, "n k"]) -> Float[Array, " n"]:
    """Pearson's, of each row."""
    centred = (x - x.mean(axis=-1, keepdims=True) for x in (a, b))
    u, v = (unit(x) for x in centred)
    return jnp.sum(u * v, axis=-1)
