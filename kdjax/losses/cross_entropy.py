"""The task itself: agree with the labels."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from kdjax.losses.class_weights import WeightedLabelLoss
from kdjax.types import Batch, Labels, Outputs


class CrossEntropy(WeightedLabelLoss):
    """`-sum_c w_c q_c log softmax(z_s)_c`, with `q` the label smoothed towards uniform.

    Of mixed images: `share` of that of the label, the rest of that of the other label. Classes
    count `w_c`, which is 1 unless `class_weights` or `class_balance` say otherwise.
    """

    def __call__(
        self, student: Outputs, teacher: Outputs | None, batch: Batch
    ) -> Float[Array, " b"]:
        """Nats per example."""
        log_p = jax.nn.log_softmax(student.logits)
        classes = log_p.shape[-1]
        return -jnp.sum(self.weights(classes) * self.target(batch, classes) * log_p, axis=-1)


def cross_entropy(logits: Float[Array, "b classes"], label: Labels) -> Float[Array, " b"]:
    """`-log softmax(z)_label` of each example."""
    log_p = jax.nn.log_softmax(logits)
    return -jnp.take_along_axis(log_p, label[:, None], axis=-1)[:, 0]
