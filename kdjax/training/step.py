"""The training step, as one device sees it: pure, and reduced over all devices in one place."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from kdjax.training.gradients import gradients_of
from kdjax.training.recipe import Recipe
from kdjax.training.state import Fixed, TrainState
from kdjax.types import AXIS, Batch

Step = Callable[[TrainState, Fixed, Batch], tuple[TrainState, Array]]


def make_train_step(recipe: Recipe) -> Step:
    """The per-device function `(state, fixed, batch) -> (state, metrics)`.

    `metrics` is one float32 vector, named by `recipe.metric_names()`, so that the host fetches one
    array a step. The objective is `sum_i w_i(epoch) · loss_i(global batch)`.
    """
    fit = recipe.run.fit
    schedule, stretch = recipe.schedule(), recipe.stretch

    def train_step(state: TrainState, fixed: Fixed, batch: Batch) -> tuple[TrainState, Array]:
        weights = recipe.weights(state)
        pulls = [weights, *recipe.apart(weights)]
        parts, (stats, memory), terms = gradients_of(recipe, state, fixed, batch, pulls)
        # The one reduction: up to here everything is this device's share of the global batch.
        (gradients, *apart), terms = jax.lax.psum((parts, terms), AXIS)
        stats = stretch.put(stretch.still(state.stats), jax.lax.pmean(stretch.moving(stats), AXIS))

        extra = {"task": apart[0]} if apart else {}
        moving, still = stretch.moving(state.params), stretch.still(state.params)
        optimizer = recipe.transform(state.params)
        updates, moments = optimizer.update(gradients, state.optimizer, moving, **extra)
        new = state._replace(
            step=state.step + 1,
            params=stretch.put(still, optax.apply_updates(moving, updates)),
            stats=stats,
            memory=memory,
            optimizer=moments,
        )
        if fit.ema_decay is not None:
            new = new._replace(ema=_moving_average(fit.ema_decay, new))
        summary = [jnp.dot(weights, terms), optax.tree.norm(gradients), schedule(state.step)]
        metrics = jnp.concatenate([jnp.stack(summary).astype(jnp.float32), terms, weights])
        return new, metrics

    return train_step


def make_train_steps(recipe: Recipe) -> Step:
    """The per-device function that makes a step of each batch of `[steps, …]`, in their order.

    Metrics are `[steps, metrics]`. The host, which takes about a millisecond to start a step,
    starts all of them at once.
    """
    train_step = make_train_step(recipe)
    # XLA's CPU backend runs convolutions inside a rolled loop 100 times slower.
    unroll = jax.default_backend() == "cpu"

    def train_steps(state: TrainState, fixed: Fixed, batches: Batch) -> tuple[TrainState, Array]:
        def one(state: TrainState, batch: Batch) -> tuple[TrainState, Array]:
            return train_step(state, fixed, batch)

        return jax.lax.scan(one, state, batches, unroll=unroll)

    return train_steps


def make_probe(recipe: Recipe) -> Callable[[TrainState, Fixed, Batch], Array]:
    """The per-device function `(state, fixed, batch) -> norms`, `[2, terms]`.

    The norm of each unweighted term's gradient on the student, and on its own adapter: one
    backward pass a term, so it is asked now and then, not in every step.
    """

    def probe(state: TrainState, fixed: Fixed, batch: Batch) -> Float[Array, "2 terms"]:
        pulls = list(jnp.eye(len(recipe.terms)))
        parts, _, _ = gradients_of(recipe, state, fixed, batch, pulls)
        parts = jax.lax.psum(parts, AXIS)
        norms = [[optax.tree.norm(part[of]) for part in parts] for of in ("student", "adapters")]
        return jnp.asarray(norms, jnp.float32)

    return probe


def make_balance(recipe: Recipe) -> Callable[[TrainState, Fixed, Batch], TrainState]:
    """The per-device function that scales the terms so that weights are ratios of gradients.

    `scale_i = |gradient of the first term| / |gradient of term i|` on the student, both without
    weights, so a term of weight 2 beside a first one of weight 1 pulls twice as hard as that. A
    term without a gradient keeps its scale.
    """
    probe = make_probe(recipe)

    def balance(state: TrainState, fixed: Fixed, batch: Batch) -> TrainState:
        norms, _ = probe(state, fixed, batch)
        felt = (norms > 0) & (norms[0] > 0)
        scales = recipe.stretch.numbers(state.scales)
        scales = jnp.where(felt, norms[0] / jnp.where(felt, norms, 1.0), scales)
        return state._replace(scales=recipe.stretch.with_numbers(state.scales, scales))

    return balance


def make_opening(recipe: Recipe) -> Callable[[TrainState, Fixed, Batch], TrainState]:
    """The per-device function that begins a phase: with fresh moments for what it trains."""

    def opening(state: TrainState, fixed: Fixed, batch: Batch) -> TrainState:
        del fixed, batch
        moving = recipe.stretch.moving(state.params)
        moments = recipe.transform(state.params).init(moving)
        return state._replace(optimizer=moments)

    return opening


def _moving_average(decay: float, state: TrainState) -> Any:
    """`ema = d · ema + (1 - d) · weights`, with d small at first so that the start is forgotten."""
    d = jnp.minimum(decay, (1.0 + state.step) / (10.0 + state.step))
    # Written so that what does not change stays what it is, to the bit.
    return jax.tree.map(lambda a, x: a + (1 - d) * (x - a), state.ema, dict(state.variables()))
