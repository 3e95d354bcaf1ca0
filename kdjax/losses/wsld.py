"""Weighted soft labels (Zhou et al., 2021, arXiv:2102.00650)."""

from typing import ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from kdjax.losses.base import DistillationLoss, require_teacher, require_temperature
from kdjax.losses.cross_entropy import cross_entropy
from kdjax.losses.ramp import Ramp, at
from kdjax.losses.soft_target import soft_target
from kdjax.types import Batch, Outputs


class WSLD(DistillationLoss):
    """`(1 - exp(-CE_s / (CE_t + 1e-7))) · T² KL(softmax(z_t / T) || softmax(z_s / T))`.

    The cross-entropies are those of the labels at T = 1, never negative; the 1e-7 is the authors'
    guard for a teacher that is certain. The weight is a constant to the gradient: an example
    counts less where the student already does better than the teacher. The authors' code has the
    soft cross-entropy in place of the divergence: another value, the same gradient.

    Usual weight: 2.5, beside the labels (the authors' code for ImageNet).
    """

    temperature: float | Ramp = 2.0
    """Divides both logits in the divergence, not in the weight; positive."""

    needs_one_label: ClassVar[bool] = True
    needs_label: ClassVar[bool] = True

    def check(self) -> None:
        """The temperature is positive."""
        require_temperature(self.temperature)

    def __call__(
        self, student: Outputs, teacher: Outputs | None, batch: Batch
    ) -> Float[Array, " b"]:
        """Nats per example, times T²."""
        teacher = require_teacher(self, teacher)
        ours = cross_entropy(student.logits, batch.label)
        theirs = cross_entropy(teacher.logits, batch.label)
        weight = jax.lax.stop_gradient(-jnp.expm1(-ours / (theirs + 1e-7)))
        temperature = at(self.temperature, batch.epoch)
        return weight * soft_target(student.logits, teacher.logits, temperature)
