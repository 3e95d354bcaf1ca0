"""What a network is measured by beside the metrics that are always there. Decides no weights."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from kdjax.experiment.objective import log_names
from kdjax.types import Batch, Outputs


@dataclass(frozen=True, kw_only=True)
class Metric:
    """`value(mean over all examples of metric(student, teacher, batch))`, in evaluation mode.

    The mean is over every example of a split, each once, on any number of devices.
    """

    needs_teacher: ClassVar[bool] = False
    """It compares with the teacher: left out where there is none, as for the teacher itself."""

    def __call__(
        self, student: Outputs, teacher: Outputs | None, batch: Batch
    ) -> Float[Array, "b ..."]:
        """One number of each example, or several, float32; `student` is what is measured."""
        raise ValueError(f"{type(self).__name__} has no __call__; define it.")

    def value(self, mean: Float[np.ndarray, "..."]) -> float:
        """The metric, of the mean, float64 on the host: that mean itself, if it is one number."""
        if mean.ndim:
            name, shape = type(self).__name__, list(mean.shape)
            raise ValueError(
                f"{name}: its mean has shape {shape}; define value, which makes one number of it."
            )
        return float(mean)

    def check(self) -> None:
        """ValueError for the first field that cannot work: `threshold: 2 cannot work; …`."""


@dataclass(frozen=True, kw_only=True)
class BalancedAccuracy(Metric):
    """Share of right answers in each class, averaged over the classes that occur.

    Rare classes count as much as frequent ones (Brodersen et al., 2010,
    doi:10.1109/ICPR.2010.764); where all are equally frequent, it is top-1.
    """

    def __call__(
        self, student: Outputs, teacher: Outputs | None, batch: Batch
    ) -> Float[Array, "b 2 classes"]:
        """Of which class the example is, and in which it is recognised: rows of zeros and a one."""
        member = jax.nn.one_hot(batch.label, student.logits.shape[-1])
        right = student.logits.argmax(axis=-1) == batch.label
        return jnp.stack([member, member * right[:, None]], axis=1)

    def value(self, mean: Float[np.ndarray, "2 classes"]) -> float:
        """The mean of the classes' shares."""
        member, right = mean[:, mean[0] > 0]
        return float((right / member).mean())


Measure = BalancedAccuracy | Metric
"""Every metric to choose; the last stands for those that are not ours."""


def named(metrics: Sequence[Measure], *, taught: bool) -> dict[str, Measure]:
    """By the name it is logged under, each metric that can be computed with a teacher or without.

    Classes in snake case, numbered where one occurs again.
    """
    pairs = zip(log_names(metrics), metrics, strict=True)
    return {name: metric for name, metric in pairs if taught or not metric.needs_teacher}
