"""A token that is taught by the teacher (Touvron et al., 2021, arXiv:2012.12877)."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from kdjax.losses.base import DistillationLoss, require_teacher, require_temperature
from kdjax.losses.cross_entropy import cross_entropy
from kdjax.losses.ramp import Ramp, at
from kdjax.losses.soft_target import soft_target
from kdjax.types import Batch, Outputs

HEAD = "distillation_head"
"""The feature that holds the logits of the token's own head."""


class DistillationToken(DistillationLoss):
    """`-log softmax(z_d)_c`, with the head `z_d` of the distillation token and `c = argmax z_t`.

    For `ViT(distillation_token=True)`, whose other head learns from the labels. With a temperature
    the head learns the soft targets `T² KL(softmax(z_t / T) || softmax(z_d / T))` instead; the
    authors' code divides that by the number of classes too. Usual weight: 0.5 beside 0.5 of the
    labels; for soft targets 0.1 beside 0.9, at temperature 3.
    """

    temperature: float | Ramp | None = None
    """Divides both logits, positive; None: learn the teacher's decision."""

    def check(self) -> None:
        """The temperature is positive."""
        if self.temperature is not None:
            require_temperature(self.temperature)

    def __call__(
        self, student: Outputs, teacher: Outputs | None, batch: Batch
    ) -> Float[Array, " b"]:
        """Nats per example, times T² where it is soft."""
        teacher = require_teacher(self, teacher)
        if HEAD not in student.features:
            raise ValueError(
                "DistillationToken: the student has no distillation head; use "
                "ViT(distillation_token=True), or HardTarget or SoftTarget instead."
            )
        logits = student.features[HEAD].astype(jnp.float32).reshape(teacher.logits.shape)
        if self.temperature is None:
            return cross_entropy(logits, jnp.argmax(teacher.logits, axis=-1))
        return soft_target(logits, teacher.logits, at(self.temperature, batch.epoch))
