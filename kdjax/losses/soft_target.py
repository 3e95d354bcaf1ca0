"""Soft targets (Hinton et al., 2015, arXiv:1503.02531)."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from kdjax.losses.base import DistillationLoss, require_teacher, require_temperature
from kdjax.losses.ramp import Ramp, at
from kdjax.types import Batch, Outputs


class SoftTarget(DistillationLoss):
    """`T² KL(softmax(z_t / T) || softmax(z_s / T))`, summed over classes.

    The factor `T²` keeps the size of the gradient independent of the temperature.
    """

    temperature: float | Ramp = 4.0
    """Divides both logits; positive."""

    def check(self) -> None:
        """The temperature is positive."""
        require_temperature(self.temperature)

    def __call__(
        self, student: Outputs, teacher: Outputs | None, batch: Batch
    ) -> Float[Array, " b"]:
        """Nats per example, times T²."""
        teacher = require_teacher(self, teacher)
        temperature = at(self.temperature, batch.epoch)
        return soft_target(student.logits, teacher.logits, temperature)


def soft_target(
    student_logits: Float[Array, "b classes"],
    teacher_logits: Float[Array, "b classes"],
    temperature: float | Float[Array, "b 1"],
) -> Float[Array, " b"]:
    """`T² KL(softmax(z_t / T) || softmax(z_s / T))` of each example."""
    log_p = jax.nn.log_softmax(teacher_logits / temperature)
    log_q = jax.nn.log_softmax(student_logits / temperature)
    return jnp.sum(temperature**2 * jnp.exp(log_p) * (log_p - log_q), axis=-1)
