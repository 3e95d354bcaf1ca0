"""Logit standardization (Sun et al., 2024, arXiv:2403.01427)."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from kdjax.losses.base import DistillationLoss, require_teacher, require_temperature, safe_sqrt
from kdjax.losses.ramp import Ramp, at
from kdjax.losses.soft_target import soft_target
from kdjax.types import Batch, Outputs


class LogitStandardization(DistillationLoss):
    """`SoftTarget` of `(z - mean(z)) / (1e-7 + std(z))`, each example by its own numbers.

    Mean and standard deviation are over the classes, with `classes - 1` in the variance, so the
    student need not reach the size of the teacher's logits.
    """

    temperature: float | Ramp = 2.0
    """Divides both standardized logits; positive."""

    def check(self) -> None:
        """The temperature is positive."""
        require_temperature(self.temperature)

    def __call__(
        self, student: Outputs, teacher: Outputs | None, batch: Batch
    ) -> Float[Array, " b"]:
        """Nats per example, times T²."""
        teacher = require_teacher(self, teacher)
        temperature = at(self.temperature, batch.epoch)
        return soft_target(standardize(student.logits), standardize(teacher.logits), temperature)


def standardize(logits: Float[Array, "b classes"]) -> Float[Array, "b classes"]:
    """Mean zero and standard deviation one over the classes; zero where all are equal."""
    centred = logits - logits.mean(axis=-1, keepdims=True)
    variance = jnp.square(centred).sum(axis=-1, keepdims=True) / (logits.shape[-1] - 1)
    return centred / (1e-7 + safe_sqrt(variance))
