"""Distillation by alpha-beta divergences (Wang et al., ICML 2025, arXiv:2505.04560)."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from kdjax.checks import require
from kdjax.losses.base import DistillationLoss, require_teacher, require_temperature
from kdjax.losses.ramp import Ramp, at
from kdjax.types import Batch, Outputs

LEAST = 0.01
"""A power; of less float32 has few digits left, since the sum is divided by it."""


class ABKD(DistillationLoss):
    """`D(p, q) = sum_c (alpha p^(alpha+beta) + beta q^(alpha+beta)) / ((alpha + beta) alpha beta)
    - p^alpha q^beta / (alpha beta)`, of `p = softmax(z_t / T)` and `q = softmax(z_s / T)`.

    A large `alpha` looks at classes where the two differ much, a large `beta` at those that the
    student is sure of. Where one of them is zero it is the limit:

    - `alpha = 1`, `beta = 0`: `KL(p || q)`, which is `SoftTarget` without its T²;
    - `alpha = 0`, `beta = 1`: `KL(q || p)`;
    - `beta = 0`: `sum_c (p^alpha log(p^alpha / q^alpha) - p^alpha + q^alpha) / alpha²`, and
      likewise for `alpha = 0`. The authors' code divides by `alpha` alone.

    There is no factor T², so weights are larger than those of `SoftTarget`.

    Usual weight: 32, beside the labels, for resnet56 and resnet20 on CIFAR-100, with the defaults.
    """

    alpha: float = 0.8
    """Power of the teacher's probabilities; not negative."""
    beta: float = 0.3
    """Power of the student's probabilities; not negative."""
    temperature: float | Ramp = 4.0
    """Divides both logits; positive."""

    def check(self) -> None:
        """Powers are not negative and not both zero, the temperature is positive."""
        for field in ("alpha", "beta"):
            power = getattr(self, field)
            fits = power == 0 or power >= LEAST
            require(field, power, fits, f"0, or at least {LEAST}, for float32")
        require("beta", self.beta, self.alpha + self.beta > 0, "positive where alpha is 0")
        require_temperature(self.temperature)

    def __call__(
        self, student: Outputs, teacher: Outputs | None, batch: Batch
    ) -> Float[Array, " b"]:
        """Of each example; nats where it is a Kullback-Leibler divergence."""
        teacher = require_teacher(self, teacher)
        temperature = at(self.temperature, batch.epoch)
        log_p = jax.nn.log_softmax(teacher.logits / temperature)
        log_q = jax.nn.log_softmax(student.logits / temperature)
        return divergence(log_p, log_q, self.alpha, self.beta)


def divergence(
    log_p: Float[Array, "b classes"], log_q: Float[Array, "b classes"], alpha: float, beta: float
) -> Float[Array, " b"]:
    """`D(p, q)`; the powers turn round with the distributions."""
    if alpha == 0:
        return divergence(log_q, log_p, beta, alpha)
    if beta == 0:
        a, b = alpha * log_p, alpha * log_q
        return jnp.sum(jnp.exp(a) * (a - b) - jnp.exp(a) + jnp.exp(b), axis=-1) / alpha**2
    total = alpha + beta
    own = (alpha * jnp.exp(total * log_p) + beta * jnp.exp(total * log_q)) / total
    return jnp.sum(own - jnp.exp(alpha * log_p + beta * log_q), axis=-1) / (alpha * beta)
