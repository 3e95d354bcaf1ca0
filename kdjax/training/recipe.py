"""A run in steps."""

from dataclasses import dataclass

import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from kdjax.experiment import Run
from kdjax.experiment.objective import Term, for_examples, term_names
from kdjax.models import Model
from kdjax.training.state import TrainState


@dataclass(frozen=True)
class Recipe:
    """A run in steps: everything the step needs that is not an array."""

    run: Run
    teacher: Model | None
    terms: tuple[Term, ...]
    """The run's losses, for its number of examples."""
    steps: int
    """Length of the run."""
    steps_per_epoch: float
    """Batches straddle epochs, so this need not be whole."""

    @staticmethod
    def of(run: Run, teacher: Model | None, examples: int) -> "Recipe":
        """Steps from epochs."""
        per_epoch = examples * run.data.views / run.fit.batch_size
        steps = max(1, round(run.fit.epochs * per_epoch))
        return Recipe(run, teacher, for_examples(run.losses, examples), steps, per_epoch)

    def schedule(self) -> optax.Schedule:
        """Learning rate by step."""
        return self.run.fit.schedule.schedule(self.steps_per_epoch, self.steps)

    def optimizer(self) -> optax.GradientTransformationExtraArgs:
        """Clip, then the optimizer."""
        fit = self.run.fit
        transform = fit.optimizer.transform(self.schedule())
        if fit.clip_norm is not None:
            transform = optax.chain(optax.clip_by_global_norm(fit.clip_norm), transform)
        return optax.with_extra_args_support(transform)

    def weights(self, state: TrainState) -> Float[Array, " terms"]:
        """What each term counts in the step that follows."""
        epoch = state.step / self.steps_per_epoch
        return jnp.stack([term.weight_at(epoch) for term in self.terms]) * state.scales

    @property
    def teaching(self) -> Model | None:
        """The network that teaches: another one, or the moving average of this one."""
        return self.run.model if self.run.fit.ema_teacher else self.teacher

    def apart(self, weights: Float[Array, " terms"]) -> list[Float[Array, " terms"]]:
        """The weights of the terms that an optimizer wants the gradient of by itself, if any."""
        if not self.run.fit.optimizer.splits_task:
            return []
        task = [not term.loss.needs_teacher for term in self.terms]
        return [jnp.where(jnp.asarray(task), weights, 0.0)]

    def metric_names(self) -> tuple[str, ...]:
        """What each number of the step's metrics vector is."""
        terms = term_names(self.terms)
        weights = tuple(f"weight/{name}" for name in terms)
        return ("loss", "gradient_norm", "learning_rate", *terms, *weights)
