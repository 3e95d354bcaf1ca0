"""A yes or no for each class (Wightman et al., 2021, "ResNet strikes back", arXiv:2110.00476)."""

import jax
from jaxtyping import Array, Float

from kdjax.checks import require
from kdjax.losses.label_loss import LabelLoss
from kdjax.types import Batch, Outputs


class BinaryCrossEntropy(LabelLoss):
    """`-1/C sum_c (q_c log sigmoid(z_c) + (1 - q_c) log sigmoid(-z_c))`, `z` of the student.

    `q` is the label smoothed towards uniform, of mixed images a share of both labels. With
    `target_threshold` it is 1 where it was above that and 0 elsewhere: a mixture is wholly both, as
    in the paper. Defaults are those of timm: the mean over the classes, a smoothing of 0.1, and
    no threshold.
    """

    label_smoothing: float = 0.1
    """Probability mass spread evenly over all classes, in [0, 1)."""
    target_threshold: float | None = None
    """Probability above which a class counts as there, in [0, 1); None: `q` as it is."""
    sum_classes: bool = False
    """Sum over the classes instead of averaging."""

    def check(self) -> None:
        """A threshold that some probability exceeds."""
        super().check()
        threshold = self.target_threshold
        if threshold is not None:
            require("target_threshold", threshold, 0 <= threshold < 1, "in [0, 1), or None")

    def __call__(
        self, student: Outputs, teacher: Outputs | None, batch: Batch
    ) -> Float[Array, " b"]:
        """Nats per example, and per class."""
        logits = student.logits
        target = self.target(batch, logits.shape[-1])
        if self.target_threshold is not None:
            target = (target > self.target_threshold).astype(logits.dtype)
        there, not_there = jax.nn.log_sigmoid(logits), jax.nn.log_sigmoid(-logits)
        nats = -(target * there + (1 - target) * not_there)
        return nats.sum(axis=-1) if self.sum_classes else nats.mean(axis=-1)
