"""Refined logit distillation (Sun et al., ICCV 2025, arXiv:2408.07703)."""

from typing import ClassVar

import jax.numpy as jnp
from jaxtyping import Array, Float

from kdjax.checks import require
from kdjax.losses.base import DistillationLoss, require_teacher, require_temperature
from kdjax.losses.dkd import binary_divergence, decouple
from kdjax.losses.ramp import Ramp, at
from kdjax.losses.soft_target import soft_target
from kdjax.types import Batch, Outputs

OUT = -1e9
"""A logit that softmax makes 0 of, whatever the others are; finite, so that all may be out."""


class RLD(DistillationLoss):
    """`alpha T_a² SCD + beta T² MCD`: what a teacher says, but for its mistakes.

    Both are Kullback-Leibler divergences from the teacher, with the label `y`:

    - SCD, sample confidence, compares `(p_m, 1 - p_m)` of the teacher, `m` its largest class, with
      `(q_y, 1 - q_y)` of the student, both at the temperature `T_a`: as sure, but of the label;
    - MCD, masked correlation, compares how the classes share what is theirs at `T`, only those
      that the teacher ranks below the label; 0 where there are none.

    Usual weight: 1, `Ramp()`, beside the labels.
    """

    alpha: float = 1.0
    """Weight of SCD."""
    beta: float = 8.0
    """Weight of MCD."""
    temperature: float | Ramp = 4.0
    """T, divides both logits in MCD; positive."""
    confidence_temperature: float | Ramp = 4.0
    """T_a, divides both logits in SCD; positive. The authors' commands have T for both, with
    `--same-t`; without it their code has 1."""

    needs_one_label: ClassVar[bool] = True
    needs_label: ClassVar[bool] = True

    def check(self) -> None:
        """Weights are not negative, temperatures are positive."""
        require("alpha", self.alpha, self.alpha >= 0, ">= 0")
        require("beta", self.beta, self.beta >= 0, ">= 0")
        require_temperature(self.temperature)
        require_temperature(self.confidence_temperature, "confidence_temperature")

    def __call__(
        self, student: Outputs, teacher: Outputs | None, batch: Batch
    ) -> Float[Array, " b"]:
        """Nats per example, times squared temperatures."""
        teacher = require_teacher(self, teacher)
        t_a = at(self.confidence_temperature, batch.epoch)
        odds_s, _ = decouple(student.logits / t_a, batch.label)
        odds_t, _ = decouple(teacher.logits / t_a, jnp.argmax(teacher.logits, axis=-1))
        scd = jnp.ravel(jnp.square(t_a)) * binary_divergence(odds_t, odds_s)
        of_label = jnp.take_along_axis(teacher.logits, batch.label[:, None], axis=-1)
        below = teacher.logits < of_label
        z_s, z_t = (jnp.where(below, z, OUT) for z in (student.logits, teacher.logits))
        mcd = soft_target(z_s, z_t, at(self.temperature, batch.epoch))
        return self.alpha * scd + self.beta * mcd
