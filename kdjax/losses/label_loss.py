"""What the label says, and what losses of it have in common."""

from typing import ClassVar

import jax
from jaxtyping import Array, Float

from kdjax.checks import require
from kdjax.losses.base import DistillationLoss
from kdjax.types import Batch


class LabelLoss(DistillationLoss):
    """A loss that compares the student's answer with a distribution over the classes."""

    label_smoothing: float = 0.0
    """Probability mass spread evenly over all classes, in [0, 1)."""

    needs_teacher: ClassVar[bool] = False
    needs_label: ClassVar[bool] = True

    def check(self) -> None:
        """Some of the label remains."""
        smoothing = self.label_smoothing
        require("label_smoothing", smoothing, 0 <= smoothing < 1, "in [0, 1)")

    def target(self, batch: Batch, classes: int) -> Float[Array, "b classes"]:
        """The label of each example as probabilities, smoothed towards uniform.

        Of a mixed image: `share` of its own label, the rest of the other label.
        """
        target = jax.nn.one_hot(batch.label, classes)
        if batch.share is not None:
            share = batch.share[:, None]
            target = share * target + (1 - share) * jax.nn.one_hot(batch.other_label, classes)
        return (1 - self.label_smoothing) * target + self.label_smoothing / classes
