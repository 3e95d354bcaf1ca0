"""The task itself: agree with the labels."""

from typing import ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from kdjax.checks import require
from kdjax.losses.base import DistillationLoss
from kdjax.types import Batch, Labels, Outputs


class CrossEntropy(DistillationLoss):
    """`-sum_c q_c log softmax(z_s)_c`, with `q` the label smoothed towards uniform.

    Of mixed images: `share` of that of the label, the rest of that of the other label.
    """

    label_smoothing: float = 0.0
    """Probability mass spread evenly over all classes, in [0, 1)."""

    needs_teacher: ClassVar[bool] = False
    needs_label: ClassVar[bool] = True

    def check(self) -> None:
        """Some of the label remains."""
        smoothing = self.label_smoothing
        require("label_smoothing", smoothing, 0 <= smoothing < 1, "in [0, 1)")

    def __call__(
        self, student: Outputs, teacher: Outputs | None, batch: Batch
    ) -> Float[Array, " b"]:
        """Nats per example."""
        log_p = jax.nn.log_softmax(student.logits)
        classes = log_p.shape[-1]
        target = jax.nn.one_hot(batch.label, classes)
        if batch.share is not None:
            share = batch.share[:, None]
            target = share * target + (1 - share) * jax.nn.one_hot(batch.other_label, classes)
        target *= 1 - self.label_smoothing
        return -jnp.sum((target + self.label_smoothing / classes) * log_p, axis=-1)


def cross_entropy(logits: Float[Array, "b classes"], label: Labels) -> Float[Array, " b"]:
    """`-log softmax(z)_label` of each example."""
    log_p = jax.nn.log_softmax(logits)
    return -jnp.take_along_axis(log_p, label[:, None], axis=-1)[:, 0]
