"""Decoupled knowledge distillation (Zhao et al., 2022, arXiv:2203.08679)."""

from typing import ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from kdjax.checks import require
from kdjax.losses.base import DistillationLoss, require_teacher, require_temperature
from kdjax.losses.ramp import Ramp, at
from kdjax.types import Batch, Labels, Outputs


class DKD(DistillationLoss):
    """`T² (alpha TCKD + beta NCKD)`, both Kullback-Leibler divergences from the teacher.

    With `p = softmax(z / T)` and the label `y`:

    - TCKD compares `(p_y, 1 - p_y)`: how sure of the label;
    - NCKD compares `p_c / (1 - p_y)` over the classes `c ≠ y`: how the rest is shared out.

    `SoftTarget` is `alpha = 1` and `beta = 1 - p_y` of the teacher. The authors' code takes the
    label out of the softmax by subtracting 1000 from its logit; here it is left out exactly.
    """

    alpha: float = 1.0
    """Weight of TCKD."""
    beta: float = 8.0
    """Weight of NCKD."""
    temperature: float | Ramp = 4.0
    """Divides both logits; positive."""

    needs_one_label: ClassVar[bool] = True
    needs_label: ClassVar[bool] = True

    def check(self) -> None:
        """Weights are not negative, the temperature is positive."""
        require("alpha", self.alpha, self.alpha >= 0, ">= 0")
        require("beta", self.beta, self.beta >= 0, ">= 0")
        require_temperature(self.temperature)

    def __call__(
        self, student: Outputs, teacher: Outputs | None, batch: Batch
    ) -> Float[Array, " b"]:
        """Nats per example, times T²."""
        teacher = require_teacher(self, teacher)
        temperature = at(self.temperature, batch.epoch)
        odds_s, rest_s = decouple(student.logits / temperature, batch.label)
        odds_t, rest_t = decouple(teacher.logits / temperature, batch.label)
        tckd = binary_divergence(odds_t, odds_s)
        others = jax.nn.one_hot(batch.label, student.logits.shape[-1]) == 0
        share = jnp.exp(jnp.where(others, rest_t, -jnp.inf))
        nckd = jnp.sum(share * (rest_t - rest_s), axis=-1)
        return jnp.ravel(temperature**2) * (self.alpha * tckd + self.beta * nckd)


def binary_divergence(odds_p: Float[Array, " b"], odds_q: Float[Array, " b"]) -> Float[Array, " b"]:
    """`KL((p, 1 - p) || (q, 1 - q))`, from the logarithms of `p / (1 - p)` and `q / (1 - q)`."""
    yes, no = (
        jax.nn.sigmoid(side * odds_p)
        * (jax.nn.log_sigmoid(side * odds_p) - jax.nn.log_sigmoid(side * odds_q))
        for side in (1, -1)
    )
    return yes + no


def decouple(
    logits: Float[Array, "b classes"], label: Labels
) -> tuple[Float[Array, " b"], Float[Array, "b classes"]]:
    """`log(p_y / (1 - p_y))`, and `log(p_c / (1 - p_y))` of every class `c`."""
    target = jax.nn.one_hot(label, logits.shape[-1]) > 0
    rest = jax.nn.logsumexp(jnp.where(target, -jnp.inf, logits), axis=-1, keepdims=True)
    relative = logits - rest
    return jnp.where(target, relative, 0).sum(axis=-1), relative
