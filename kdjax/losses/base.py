"""What a loss is: a pure function of the student's outputs, the teacher's outputs and the batch."""

from collections.abc import Sequence
from typing import ClassVar, TypeVar

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from kdjax.checks import require, within
from kdjax.losses.ramp import Ramp
from kdjax.types import Batch, Outputs

Tap = tuple[str, str]
"""A stage of the student and the stage of the teacher it is compared with."""

L = TypeVar("L", bound="DistillationLoss")


class DistillationLoss(nn.Module):
    """One value per example, or one for the whole batch; the rest is the step's business.

    A loss with parameters of its own (an adapter) creates them in `@nn.compact`; they are trained
    with the student and thrown away with the teacher. Other variables it may have:

    - `batch_stats`: averaged over the devices after each step, as those of batch norm;
    - `memory`: what a loss of the whole batch remembers (a bank, a queue). All devices compute the
      same, so nothing is averaged.

    Random numbers come from `self.make_rng("loss")`, a key that is the same on all devices and new
    in every step; `example_keys` has one for each example.
    """

    needs_teacher: ClassVar[bool] = True
    whole_batch: ClassVar[bool] = False
    """The loss is no mean over examples: it gets the global batch, gathered from all devices, and
    returns a scalar. With `accumulate` the batch is that of a slice."""
    needs_one_label: ClassVar[bool] = False
    """The loss treats the label as the one right answer, so images cannot be mixed."""
    needs_label: ClassVar[bool] = False
    """The loss reads the label, so every training image must have one."""
    reads_classifier: ClassVar[bool] = False
    """The loss uses the teacher's last layer: `teacher_classifier`."""
    adapter: ClassVar[str | None] = None
    """The term whose parameters this loss reads and trains too, as `ft` has them; None: its own."""
    still: ClassVar[tuple[str, ...]] = ()
    """Parameters of the adapter that this loss reads and does not train."""
    prepared_by: ClassVar["type[DistillationLoss] | None"] = None
    """The loss that trains, in a phase before, the parameters that this one only reads."""
    needs_projector: ClassVar[bool] = False
    """The student must answer with its teacher's classifier: `student.reuse_classifier`."""

    def __call__(
        self, student: Outputs, teacher: Outputs | None, batch: Batch
    ) -> Float[Array, " *b"]:
        """The loss of each example, or of the whole batch, float32."""
        raise TypeError(f"{type(self).__name__} does not define __call__")

    def taps(self, student: Outputs, teacher: Outputs) -> tuple[Tap, ...]:
        """The stages this loss compares; empty if it reads logits or embeddings.

        Outputs may be shapes only. ValueError if they have no such stages.
        """
        return ()

    def check(self) -> None:
        """ValueError for the first field that cannot work: `temperature: 0 cannot work; …`."""

    @property
    def counts_classes(self) -> bool:
        """Whether `for_examples` must know how many training examples each class has."""
        return False

    def for_examples(self: L, examples: int, per_class: Sequence[int] = ()) -> L:
        """The loss for a training split of this size; most do not care.

        `per_class`: examples of each class; empty where they were not counted.
        """
        return self

    def example_keys(self, batch: Batch) -> Array:
        """A random key for each example, whatever device it is on."""
        return jax.vmap(jax.random.fold_in, (None, 0))(self.make_rng("loss"), batch.index)

    def teacher_classifier(self, embedding: Array, teacher: Outputs) -> Float[Array, "b classes"]:
        """What the teacher's last layer says of other embeddings of its width."""
        if self.is_initializing():  # only shapes matter then
            return jnp.zeros_like(teacher.logits)
        kernel: Array = self.get_variable("teacher", "kernel")
        bias: Array = self.get_variable("teacher", "bias")
        return embedding @ kernel + bias


def require_temperature(temperature: float | Ramp, field: str = "temperature") -> None:
    """The rule that all temperatures obey."""
    if isinstance(temperature, Ramp):
        with within(field):
            temperature.check()
        positive = min(temperature.start, temperature.stop) > 0
    else:
        positive = temperature > 0
    require(field, temperature, positive, "positive")


def require_teacher(loss: DistillationLoss, teacher: Outputs | None) -> Outputs:
    """The teacher's outputs, for losses that cannot do without."""
    if teacher is None:
        raise ValueError(f"{type(loss).__name__} needs a teacher, and this run has none.")
    return teacher


def safe_sqrt(x: Array) -> Array:
    """The square root, with gradient zero instead of infinite at zero."""
    positive = x > 0
    return jnp.where(positive, jnp.sqrt(jnp.where(positive, x, 1.0)), 0.0)


def unit(x: Array, axis: int = -1) -> Array:
    """Divided by its Euclidean length; zero stays zero, and its gradient too."""
    # The largest value goes first, so that no square is too large or too small for float32.
    peak = jax.lax.stop_gradient(jnp.abs(x).max(axis=axis, keepdims=True))
    x = x / jnp.where(peak > 0, peak, 1.0)
    length = safe_sqrt(jnp.square(x).sum(axis=axis, keepdims=True))
    return x / jnp.where(length > 0, length, 1.0)
