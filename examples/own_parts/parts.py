"""A loss, an optimizer, a schedule, a random view and a metric that kdjax does not know."""

from dataclasses import dataclass

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from kdjax.checks import require
from kdjax.data.augment import Transform
from kdjax.experiment import Decay, Descent, LearningRate, Metric
from kdjax.experiment.updates import Share, decayed, everywhere
from kdjax.losses import DistillationLoss
from kdjax.types import Batch, Outputs


class HuberEmbedding(DistillationLoss):
    """`mean huber(W e_s - e_t)`: the student's embedding is the teacher's, but for a matrix W."""

    delta: float = 1.0
    """Where the loss turns from a square into a straight line."""

    def check(self) -> None:
        """A straight line from the start has no slope at zero."""
        require("delta", self.delta, self.delta > 0, "positive")

    @nn.compact
    def __call__(
        self, student: Outputs, teacher: Outputs | None, batch: Batch
    ) -> Float[Array, " b"]:
        """One value an example."""
        assert teacher is not None  # `needs_teacher` says so
        width = teacher.embedding.shape[-1]
        turned = nn.Dense(width, use_bias=False, name="turn")(student.embedding)
        return optax.huber_loss(turned, teacher.embedding, delta=self.delta).mean(axis=-1)


@dataclass(frozen=True, kw_only=True)
class SignDescent(Descent):
    """The sign of the gradient's running mean."""

    kept: float = 0.9
    """Share of the mean that is kept."""
    weight_decay: float = 1e-3
    """Added to the sign as `weight_decay * parameter`."""
    decay: Decay = "kernels"
    """What weight decay touches."""

    def check(self) -> None:
        """A mean that forgets nothing learns nothing."""
        require("kept", self.kept, 0 <= self.kept < 1, "in [0, 1)")

    def transform(
        self, rate: optax.Schedule, share: Share = everywhere
    ) -> optax.GradientTransformation:
        """Any chain of Optax."""
        return optax.chain(
            optax.ema(self.kept),
            optax.stateless(lambda updates, params: jax.tree.map(jnp.sign, updates)),
            decayed(self.weight_decay, self.decay, share),
            optax.scale_by_learning_rate(rate),
        )


@dataclass(frozen=True, kw_only=True)
class Triangle(LearningRate):
    """Up to `peak` and down to nothing, in straight lines."""

    peak: float = 0.1
    """Highest learning rate."""
    at: float = 0.3
    """When it is reached, as a share of the run."""

    def schedule(self, steps_per_epoch: float, steps: int) -> optax.Schedule:
        """Learning rate by step."""
        del steps_per_epoch
        top = max(1, round(self.at * steps))
        up, down = (
            optax.linear_schedule(0.0, self.peak, top),
            optax.linear_schedule(self.peak, 0.0, max(1, steps - top)),
        )
        return optax.join_schedules([up, down], [top])


@dataclass(frozen=True, kw_only=True)
class Darken(Transform):
    """Fewer levels of light, by a share that is drawn for each view."""

    most: float = 0.5
    """The largest share of the light that is taken away."""

    def __call__(self, key: Array, image: Array) -> Array:
        """The view, of the same shape and type."""
        kept = 1 - jax.random.uniform(key, maxval=self.most)
        return (image * kept).astype(image.dtype)


@dataclass(frozen=True, kw_only=True)
class SuperclassAccuracy(Metric):
    """Share of answers in the right superclass: of digits, with a loop or without one."""

    superclasses: tuple[int, ...] = (1, 0, 0, 0, 0, 0, 1, 0, 1, 1)
    """The superclass of each class."""

    def __call__(
        self, student: Outputs, teacher: Outputs | None, batch: Batch
    ) -> Float[Array, " b"]:
        """One where the answer is in the superclass of the label, zero elsewhere."""
        count, classes = len(self.superclasses), student.logits.shape[-1]
        require("superclasses", count, count == classes, f"one a class, {classes} of them")
        superclass = jnp.array(self.superclasses)
        answer = student.logits.argmax(axis=-1)
        return (superclass[answer] == superclass[batch.label]).astype(jnp.float32)
