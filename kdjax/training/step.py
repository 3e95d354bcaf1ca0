"""The training step, as one device sees it: pure, and reduced over all devices in one place."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from kdjax.data.augment import augment
from kdjax.experiment import Run
from kdjax.losses import term_names
from kdjax.models import Model, infer
from kdjax.training.state import TrainState
from kdjax.types import AXIS, Batch, Outputs, Variables

Step = Callable[[TrainState, Variables | None, Batch], tuple[TrainState, Array]]


@dataclass(frozen=True)
class Plan:
    """A run in steps: everything the step needs that is not an array."""

    run: Run
    teacher: Model | None
    steps: int
    """Length of the run."""
    steps_per_epoch: float
    """Batches straddle epochs, so this need not be whole."""

    @staticmethod
    def of(run: Run, teacher: Model | None, examples: int) -> "Plan":
        """Steps from epochs."""
        per_epoch = examples / run.fit.batch_size
        return Plan(run, teacher, max(1, round(run.fit.epochs * per_epoch)), per_epoch)

    def schedule(self) -> optax.Schedule:
        """Learning rate by step."""
        return self.run.fit.schedule.schedule(self.steps_per_epoch, self.steps)

    def optimizer(self) -> optax.GradientTransformation:
        """Clip, then the optimizer."""
        fit = self.run.fit
        transform = fit.optimizer.transform(self.schedule())
        if fit.clip_norm is None:
            return transform
        return optax.chain(optax.clip_by_global_norm(fit.clip_norm), transform)

    def metric_names(self) -> tuple[str, ...]:
        """What each number of the step's metrics vector is."""
        terms = term_names(self.run.losses)
        weights = tuple(f"weight/{name}" for name in terms)
        return ("loss", "gradient_norm", "learning_rate", *terms, *weights)


def make_train_step(plan: Plan) -> Step:
    """The per-device function `(state, teacher variables, batch) -> (state, metrics)`.

    `metrics` is one float32 vector, named by `plan.metric_names()`, so that the host fetches one
    array a step. The objective is `sum_i w_i(epoch) · mean over the global batch of loss_i`.
    """
    run, fit = plan.run, plan.run.fit
    optimizer, schedule = plan.optimizer(), plan.schedule()

    def train_step(
        state: TrainState, teacher: Variables | None, batch: Batch
    ) -> tuple[TrainState, Array]:
        batch = augment(run.data.augment, run.seed, batch)
        epoch = state.step / plan.steps_per_epoch
        weights = jnp.stack([term.weight_at(epoch) for term in run.losses])

        gradients, stats, terms = _accumulate(plan, state, teacher, batch, weights)
        # The one reduction: up to here everything is this device's share of the global batch.
        gradients, terms = jax.lax.psum((gradients, terms), AXIS)
        stats = jax.lax.pmean(stats, AXIS)

        updates, optimizer_state = optimizer.update(gradients, state.optimizer, state.params)
        params = optax.apply_updates(state.params, updates)
        new = TrainState(state.step + 1, params, stats, optimizer_state, state.ema)
        if fit.ema_decay is not None:
            new = new._replace(ema=_moving_average(fit.ema_decay, new))
        summary = [jnp.dot(weights, terms), optax.tree.norm(gradients), schedule(state.step)]
        metrics = jnp.concatenate([jnp.stack(summary).astype(jnp.float32), terms, weights])
        return new, metrics

    return train_step


def _accumulate(
    plan: Plan, state: TrainState, teacher: Variables | None, batch: Batch, weights: Array
) -> tuple[Any, Any, Float[Array, " terms"]]:
    """Gradients and terms summed over the slices; statistics pass from one to the next."""
    slices = plan.run.fit.accumulate
    sliced = jax.tree.map(lambda x: x.reshape(slices, -1, *x.shape[1:]), batch)

    def objective(params: Any, stats: Any, part: Batch) -> tuple[Array, tuple[Any, Array]]:
        terms, stats = _terms(plan, params, stats, teacher, part)
        return jnp.dot(weights, terms), (stats, terms)

    def one(stats: Any, part: Batch) -> tuple[Any, tuple[Any, Array]]:
        (_, (stats, terms)), gradients = jax.value_and_grad(objective, has_aux=True)(
            state.params, stats, part
        )
        return stats, (gradients, terms)

    if slices == 1:
        stats, (gradients, terms) = one(state.stats, jax.tree.map(lambda x: x[0], sliced))
        return gradients, stats, terms
    # XLA's CPU backend runs convolutions inside a rolled loop 100 times slower.
    unroll = slices if jax.default_backend() == "cpu" else 1
    stats, parts = jax.lax.scan(one, state.stats, sliced, unroll=unroll)
    gradients, terms = jax.tree.map(lambda x: x.sum(axis=0), parts)
    return gradients, stats, terms


def _terms(
    plan: Plan, params: Any, stats: Any, teacher: Variables | None, batch: Batch
) -> tuple[Float[Array, " terms"], Any]:
    """This device's share of each term's mean over the global batch, before weighting."""
    run = plan.run
    variables = {"params": params["student"], "batch_stats": stats["student"]}
    student, updated = run.model.apply(variables, batch.image, train=True, mutable=["batch_stats"])
    target = _teach(plan.teacher, teacher, batch)
    adapters = dict(stats["adapters"])
    terms = []
    for name, term in zip(term_names(run.losses), run.losses, strict=True):
        own = {
            "params": params["adapters"].get(name, {}),
            "batch_stats": stats["adapters"].get(name, {}),
        }
        values, changed = term.loss.apply(own, student, target, batch, mutable=["batch_stats"])
        if name in adapters:
            adapters[name] = changed["batch_stats"]
        terms.append(jnp.sum(values) / run.fit.batch_size)
    return jnp.stack(terms), {"student": updated.get("batch_stats", {}), "adapters": adapters}


def _teach(model: Model | None, variables: Variables | None, batch: Batch) -> Outputs | None:
    """The teacher's outputs: always in evaluation mode, never differentiated."""
    if model is None or variables is None:
        return None
    return jax.lax.stop_gradient(infer(model, variables, batch.image))


def _moving_average(decay: float, state: TrainState) -> Any:
    """`ema = d · ema + (1 - d) · weights`, with d small at first so that the start is forgotten."""
    d = jnp.minimum(decay, (1.0 + state.step) / (10.0 + state.step))
    return jax.tree.map(lambda a, x: d * a + (1 - d) * x, state.ema, dict(state.variables()))
