"""The training step, as one device sees it: pure, and reduced over all devices in one place."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from kdjax.data.augment import augment
from kdjax.experiment import Run
from kdjax.models import Model, infer
from kdjax.objective import Term, for_examples, term_names
from kdjax.training.share import MUTABLE, loss_variables, share
from kdjax.training.state import TrainState
from kdjax.types import AXIS, Batch, Outputs, Variables

LOSSES = 2
"""Stream of the seed that losses draw their random numbers from."""

Step = Callable[[TrainState, Variables | None, Batch], tuple[TrainState, Array]]


@dataclass(frozen=True)
class Plan:
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
    def of(run: Run, teacher: Model | None, examples: int) -> "Plan":
        """Steps from epochs."""
        per_epoch = examples / run.fit.batch_size
        steps = max(1, round(run.fit.epochs * per_epoch))
        return Plan(run, teacher, for_examples(run.losses, examples), steps, per_epoch)

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
        terms = term_names(self.terms)
        weights = tuple(f"weight/{name}" for name in terms)
        return ("loss", "gradient_norm", "learning_rate", *terms, *weights)


class Remembered(NamedTuple):
    """What one slice of a batch leaves to the next: statistics, and the memory of losses."""

    stats: Any
    memory: Any


def make_train_step(plan: Plan) -> Step:
    """The per-device function `(state, teacher variables, batch) -> (state, metrics)`.

    `metrics` is one float32 vector, named by `plan.metric_names()`, so that the host fetches one
    array a step. The objective is `sum_i w_i(epoch) · loss_i(global batch)`.
    """
    run, fit = plan.run, plan.run.fit
    optimizer, schedule = plan.optimizer(), plan.schedule()

    def train_step(
        state: TrainState, teacher: Variables | None, batch: Batch
    ) -> tuple[TrainState, Array]:
        batch = augment(run.data.augment, run.seed, batch)
        epoch = state.step / plan.steps_per_epoch
        weights = jnp.stack([term.weight_at(epoch) for term in plan.terms])

        gradients, (stats, memory), terms = _accumulate(plan, state, teacher, batch, weights)
        # The one reduction: up to here everything is this device's share of the global batch.
        gradients, terms = jax.lax.psum((gradients, terms), AXIS)
        stats = jax.lax.pmean(stats, AXIS)

        updates, optimizer_state = optimizer.update(gradients, state.optimizer, state.params)
        params = optax.apply_updates(state.params, updates)
        new = TrainState(state.step + 1, params, stats, memory, optimizer_state, state.ema)
        if fit.ema_decay is not None:
            new = new._replace(ema=_moving_average(fit.ema_decay, new))
        summary = [jnp.dot(weights, terms), optax.tree.norm(gradients), schedule(state.step)]
        metrics = jnp.concatenate([jnp.stack(summary).astype(jnp.float32), terms, weights])
        return new, metrics

    return train_step


def _accumulate(
    plan: Plan,
    state: TrainState,
    teacher: Variables | None,
    batch: Batch,
    weights: Array,
) -> tuple[Any, Remembered, Float[Array, " terms"]]:
    """Gradients and terms averaged over the slices; what is remembered passes through them."""
    slices = plan.run.fit.accumulate
    sliced = jax.tree.map(lambda x: x.reshape(slices, -1, *x.shape[1:]), batch)
    key = jax.random.fold_in(jax.random.key(plan.run.seed), LOSSES)
    key = jax.random.fold_in(key, state.step)

    def objective(params: Any, past: Remembered, part: Batch) -> tuple[Array, Any]:
        terms, past = _terms(plan, params, past, teacher, part, key)
        return jnp.dot(weights, terms), (past, terms)

    def one(past: Remembered, part: Batch) -> tuple[Remembered, Any]:
        (_, (past, terms)), gradients = jax.value_and_grad(objective, has_aux=True)(
            state.params, past, part
        )
        return past, (gradients, terms)

    past = Remembered(state.stats, state.memory)
    if slices == 1:
        past, (gradients, terms) = one(past, jax.tree.map(lambda x: x[0], sliced))
        return gradients, past, terms
    # XLA's CPU backend runs convolutions inside a rolled loop 100 times slower.
    unroll = slices if jax.default_backend() == "cpu" else 1
    past, parts = jax.lax.scan(one, past, sliced, unroll=unroll)
    gradients, terms = jax.tree.map(lambda x: x.mean(axis=0), parts)
    return gradients, past, terms


def _terms(
    plan: Plan,
    params: Any,
    past: Remembered,
    teacher: Variables | None,
    batch: Batch,
    key: Array,
) -> tuple[Float[Array, " terms"], Remembered]:
    """This device's share of each term of the global batch, before weighting."""
    model, (stats, memory) = plan.run.model, past
    variables = {"params": params["student"], "batch_stats": stats["student"]}
    student, updated = model.apply(variables, batch.image, train=True, mutable=["batch_stats"])
    target = _teach(plan.teacher, teacher, batch)
    trees = (params["adapters"], dict(stats["adapters"]), dict(memory))
    terms = []
    for i, (name, term) in enumerate(zip(term_names(plan.terms), plan.terms, strict=True)):
        own = dict(zip(("params", *MUTABLE), (tree.get(name, {}) for tree in trees), strict=True))
        own = loss_variables(term.loss, own, teacher)
        value, changed = share(term.loss, own, student, target, batch, jax.random.fold_in(key, i))
        for collection, tree in zip(MUTABLE, trees[1:], strict=True):
            if name in tree:
                tree[name] = changed[collection]
        terms.append(value)
    stats = {"student": updated.get("batch_stats", {}), "adapters": trees[1]}
    return jnp.stack(terms), Remembered(stats, trees[2])


def _teach(model: Model | None, variables: Variables | None, batch: Batch) -> Outputs | None:
    """The teacher's outputs: always in evaluation mode, never differentiated."""
    if model is None or variables is None:
        return None
    return jax.lax.stop_gradient(infer(model, variables, batch.image))


def _moving_average(decay: float, state: TrainState) -> Any:
    """`ema = d · ema + (1 - d) · weights`, with d small at first so that the start is forgotten."""
    d = jnp.minimum(decay, (1.0 + state.step) / (10.0 + state.step))
    return jax.tree.map(lambda a, x: d * a + (1 - d) * x, state.ema, dict(state.variables()))
