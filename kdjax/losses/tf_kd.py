"""A teacher that is made up (Yuan et al., 2020, arXiv:1909.11723)."""

from typing import ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from kdjax.checks import require
from kdjax.losses.base import DistillationLoss, require_temperature
from kdjax.losses.ramp import Ramp, at
from kdjax.types import Batch, Outputs


class TfKD(DistillationLoss):
    """`KL(softmax(u / T) || softmax(z_s))` with a virtual teacher `u`, nearly sure of the label.

    `u` is `correct` for the label and shares the rest among the other classes. As in the authors'
    code these probabilities themselves are divided by the temperature and put through a softmax,
    so the target is nearly uniform; the student is not softened, and there is no factor `T²`.

    The authors average over classes too and make up for it by a multiplier. Usual weight, of the
    divergence as it is here: 0.1 beside 0.9 of the labels (ResNet18 on CIFAR-100: alpha 0.1 and
    multiplier 100 for 100 classes).
    """

    correct: float = 0.99
    """Probability of the label."""
    temperature: float | Ramp = 20.0
    """Divides the teacher's probabilities; positive."""

    needs_teacher: ClassVar[bool] = False
    needs_one_label: ClassVar[bool] = True
    needs_label: ClassVar[bool] = True

    def check(self) -> None:
        """A probability, and a positive temperature."""
        require("correct", self.correct, 0 < self.correct < 1, "in (0, 1)")
        require_temperature(self.temperature)

    def __call__(
        self, student: Outputs, teacher: Outputs | None, batch: Batch
    ) -> Float[Array, " b"]:
        """Nats per example."""
        classes = student.logits.shape[-1]
        label = jax.nn.one_hot(batch.label, classes)
        other = (1 - self.correct) / max(1, classes - 1)
        virtual = other + (self.correct - other) * label
        log_p = jax.nn.log_softmax(virtual / at(self.temperature, batch.epoch))
        log_q = jax.nn.log_softmax(student.logits)
        return jnp.sum(jnp.exp(log_p) * (log_p - log_q), axis=-1)
