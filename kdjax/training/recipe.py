"""A run in steps."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

from kdjax.checks import within
from kdjax.data.sources import DataInfo, Source
from kdjax.experiment import Run
from kdjax.experiment.importing import written_by_others
from kdjax.experiment.objective import Term
from kdjax.experiment.optim import Optimizer
from kdjax.experiment.runs import field_of
from kdjax.experiment.updates import clipped_apart, scaled
from kdjax.models import Model
from kdjax.training.parts import kinds
from kdjax.training.state import TrainState
from kdjax.training.stretch import Stretch, stretches


@dataclass(frozen=True)
class Recipe:
    """A run in steps, as one of its phases sees it: all the step needs that is not an array."""

    run: Run
    teacher: Model | None
    every: tuple[Term, ...]
    """The losses of all phases, for the run's number of examples."""
    stretches: tuple[Stretch, ...]
    """The phases in steps."""
    steps: int
    """Length of the run."""
    steps_per_epoch: float
    """Batches straddle epochs, so this need not be whole."""
    number: int = 0
    """Of the phase."""

    @staticmethod
    def of(
        run: Run, teacher: Model | None, examples: int, per_class: Sequence[int] = ()
    ) -> "Recipe":
        """Steps from epochs, in the first phase.

        `per_class` is what `class_counts` says; without it only shapes are known of a loss that
        counts classes. ValueError if phases are longer or shorter than the fit, or one takes no
        step.
        """
        per_epoch = examples * run.data.views / run.fit.batch_size
        steps = max(1, round(run.fit.epochs * per_epoch))
        with within(field_of(run.role)):
            every, phases = stretches(run, examples, per_class, per_epoch, steps)
        return Recipe(run, teacher, every, phases, steps, per_epoch)

    def at(self, step: int) -> "Recipe":
        """In the phase that makes this step, counted from 0."""
        begun = sum(stretch.first <= step for stretch in self.stretches)
        return replace(self, number=max(begun, 1) - 1)

    @property
    def stretch(self) -> Stretch:
        """The phase."""
        return self.stretches[self.number]

    @property
    def terms(self) -> tuple[Term, ...]:
        """The objective of the phase."""
        return self.stretch.terms

    @property
    def optimizer(self) -> Optimizer:
        """How gradients become updates in the phase."""
        return self.stretch.phase.optimizer or self.run.fit.optimizer

    def schedule(self) -> optax.Schedule:
        """Learning rate by step of the run."""
        own, first, stop = self.stretch.phase.schedule, self.stretch.first, self.stretch.stop
        with written_by_others(type(own or self.run.fit.schedule)):
            if own is None:
                return self.run.fit.schedule.schedule(self.steps_per_epoch, self.steps)
            return _later(own.schedule(self.steps_per_epoch, stop - first), first)

    def transform(self, params: Any) -> optax.GradientTransformationExtraArgs:
        """Clip, then the optimizer, for what the phase trains of these parameters."""
        stretch, norm = self.stretch, self.run.fit.clip_norm
        rate = _later(self.schedule(), -stretch.first)  # moments are fresh, and count anew
        with written_by_others(type(self.optimizer)):
            own = self.optimizer.transform(rate, lambda path: stretch.phase.factors(path).decay)
        transforms = [own]
        if norm is not None:
            transforms.insert(0, clipped_apart(norm))
        with within(f"{field_of(self.run.role)}.fit.phases.{self.number}"):
            rates = stretch.rates(params)
        if rates is not None:
            transforms.append(scaled(rates))
        whole = optax.chain(*transforms) if len(transforms) > 1 else transforms[0]
        return optax.with_extra_args_support(whole)

    def check(self, params: Any) -> None:
        """ValueError unless optimizer and schedule of each phase do what they should, for these
        parameters, which may be shapes."""
        for stretch in self.stretches:
            recipe = self.at(stretch.first)
            _check_rates(recipe)
            _check_updates(recipe, params)

    def weights(self, state: TrainState) -> Float[Array, " terms"]:
        """What each term counts in the step that follows."""
        epoch = state.step / self.steps_per_epoch
        weights = jnp.stack([term.weight_at(epoch) for term in self.terms])
        return weights * self.stretch.numbers(state.scales)

    @property
    def teaching(self) -> Model | None:
        """The network that teaches: another one, or the moving average of this one."""
        return self.run.model if self.run.fit.ema_teacher else self.teacher

    def apart(self, weights: Float[Array, " terms"]) -> list[Float[Array, " terms"]]:
        """The weights of the terms that an optimizer wants the gradient of by itself, if any."""
        if not self.optimizer.splits_task:
            return []
        task = [not term.loss.needs_teacher for term in self.terms]
        return [jnp.where(jnp.asarray(task), weights, 0.0)]

    def metric_names(self) -> tuple[str, ...]:
        """What each number of the step's metrics vector is."""
        names = self.stretch.names
        weights = tuple(f"weight/{name}" for name in names)
        return ("loss", "gradient_norm", "learning_rate", *names, *weights)


def class_counts(run: Run, info: DataInfo, split: Callable[[], Source]) -> tuple[int, ...]:
    """Training examples of each class; nothing is read, and empty, where no loss counts them."""
    terms = [*run.losses, *(term for phase in run.fit.phases for term in phase.losses or ())]
    if not any(term.loss.counts_classes for term in terms):
        return ()
    return tuple(np.bincount(split().labels, minlength=len(info.classes)).tolist())


def _later(schedule: optax.Schedule, steps: int) -> optax.Schedule:
    """The schedule begun so many steps later, or earlier."""
    return (lambda step: schedule(step - steps)) if steps else schedule


def _check_rates(recipe: Recipe) -> None:
    kind = type(recipe.stretch.phase.schedule or recipe.run.fit.schedule)
    with written_by_others(kind):
        rate = jax.eval_shape(recipe.schedule(), jax.ShapeDtypeStruct((), jnp.int32))
    if jnp.shape(rate) != ():
        raise ValueError(
            f"{kind.__name__}: a rate has shape {list(rate.shape)}; return one number a step."
        )


def _check_updates(recipe: Recipe, params: Any) -> None:
    kind, moving = type(recipe.optimizer), recipe.stretch.moving(params)
    extra = {"task": moving} if recipe.optimizer.splits_task else {}
    transform = recipe.transform(params)
    with written_by_others(kind):
        state = jax.eval_shape(transform.init, moving)
        found = jax.eval_shape(partial(transform.update, **extra), moving, state, moving)
    for what, before, after in (("updates", moving, found[0]), ("state", state, found[1])):
        if kinds(after) != kinds(before):
            raise ValueError(
                f"{kind.__name__}: its {what} after a step differ from those before in structure, "
                "shape or type; keep them."
            )
    if any(jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) for leaf in jax.tree.leaves(state)):
        raise ValueError(f"{kind.__name__}: a random key in its state cannot be kept; keep a seed.")
