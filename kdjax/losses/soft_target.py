"""Soft targets (Hinton et al., 2015, arXiv:1503.02531)."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from kdjax.losses.base import DistillationLoss, require_teacher
from kdjax.types import Batch, Outputs


class SoftTarget(DistillationLoss):
    """`T² KL(softmax(z_t / T) || softmax(z_s / T))`, summed over classes.

    The factor `T²` keeps the size of the gradient independent of the temperature.
    """

    temperature: float = 4.0
    """Divides both logits; positive."""

    def __call__(
        self, student: Outputs, teacher: Outputs | None, batch: Batch
    ) -> Float[Array, " b"]:
        """Nats per example, times T²."""
        teacher = require_teacher(self, teacher)
        log_p = jax.nn.log_softmax(teacher.logits / self.temperature)
        log_q = jax.nn.log_softmax(student.logits / self.temperature)
        return self.temperature**2 * jnp.sum(jnp.exp(log_p) * (log_p - log_q), axis=-1)
