"""What a loss is: a pure function of the student's outputs, the teacher's outputs and the batch."""

from typing import ClassVar

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from kdjax.types import Batch, Outputs


class DistillationLoss(nn.Module):
    """One value per example; weighting, masking and averaging are the step's business.

    A loss with parameters of its own (an adapter) creates them in `@nn.compact`; they are trained
    with the student and thrown away with the teacher.
    """

    needs_teacher: ClassVar[bool] = True

    def __call__(
        self, student: Outputs, teacher: Outputs | None, batch: Batch
    ) -> Float[Array, " b"]:
        """The loss of each example, float32."""
        raise TypeError(f"{type(self).__name__} does not define __call__")

    def taps(self) -> tuple[tuple[str, str], ...]:
        """The (student stage, teacher stage) pairs this loss reads; empty for logit losses."""
        return ()


def require_stages(loss: DistillationLoss, who: str, wanted: str, outputs: Outputs) -> Array:
    """The named feature map, or an error that lists the stages there are."""
    if wanted not in outputs.features:
        have = ", ".join(outputs.features)
        raise ValueError(
            f"{type(loss).__name__}: the {who} has no stage {wanted!r}; it has {have}."
        )
    return outputs.features[wanted].astype("float32")


def require_teacher(loss: DistillationLoss, teacher: Outputs | None) -> Outputs:
    """The teacher's outputs, for losses that cannot do without."""
    if teacher is None:
        raise ValueError(f"{type(loss).__name__} needs a teacher, and this run has none.")
    return teacher


def safe_sqrt(x: Array) -> Array:
    """The square root, with gradient zero instead of infinite at zero."""
    positive = x > 0
    return jnp.where(positive, jnp.sqrt(jnp.where(positive, x, 1.0)), 0.0)
