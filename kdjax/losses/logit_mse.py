"""Regression on the teacher's logits (Ba and Caruana, 2014, arXiv:1312.6184)."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from kdjax.losses.base import DistillationLoss, require_teacher
from kdjax.types import Batch, Outputs


class LogitMSE(DistillationLoss):
    """`mean_c (z_s - z_t)²`: unlike every softmax, it sees a shift common to all classes."""

    def __call__(
        self, student: Outputs, teacher: Outputs | None, batch: Batch
    ) -> Float[Array, " b"]:
        """Squared logits, per example."""
        teacher = require_teacher(self, teacher)
        return jnp.square(student.logits - teacher.logits).mean(axis=-1)
