"""The teacher's decision as a label (Touvron et al., 2021, arXiv:2012.12877)."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from kdjax.losses.base import DistillationLoss, require_teacher
from kdjax.losses.cross_entropy import cross_entropy
from kdjax.types import Batch, Outputs


class HardTarget(DistillationLoss):
    """`-log softmax(z_s)_c` with `c = argmax z_t`, the first class where several are equal."""

    def __call__(
        self, student: Outputs, teacher: Outputs | None, batch: Batch
    ) -> Float[Array, " b"]:
        """Nats per example."""
        teacher = require_teacher(self, teacher)
        return cross_entropy(student.logits, jnp.argmax(teacher.logits, axis=-1))
