"""The state that a run begins or goes on with."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from kdjax.experiment import ASSISTANTS
from kdjax.models.summary import Shape, abstract_variables
from kdjax.training.checkpoint import Checkpoints, Restored
from kdjax.training.processes import from_first
from kdjax.training.recipe import Recipe
from kdjax.training.state import (
    INITIAL_WEIGHTS,
    TrainState,
    adapter_shapes,
    initial_adapters,
    initial_variables,
)
from kdjax.types import Variables

Start = Callable[[Variables], Variables]
"""From fresh weights to those a run begins with."""


def begin(recipe: Recipe, shape: Shape, start: Start) -> TrainState:
    """Step zero, on the host."""
    return jax.device_get(_initial(recipe, shape, start))


def resume(checkpoints: Checkpoints, recipe: Recipe, shape: Shape, *, decides: bool) -> Restored:
    """The newest good state that the one process finds that `decides`, in every process."""

    def target(step: int) -> TrainState:
        return shapes(recipe.at(step - 1), shape)  # the phase that made it

    if decides:
        restored = checkpoints.restore(target)
        from_first(int(restored.state.step))
        return restored
    step = from_first(0)  # a damaged checkpoint is noticed by one process, for all
    return Restored(checkpoints.restore_step(target(step), step), ())


def shapes(recipe: Recipe, shape: Shape) -> TrainState:
    """A state of this run, in the phase of this recipe, as shapes."""
    adapters = adapter_shapes(recipe.every, recipe.run.model, recipe.teaching, shape)
    variables = abstract_variables(recipe.run.model, shape)
    return jax.eval_shape(partial(initial_state, recipe), variables, adapters)


def initial_state(recipe: Recipe, variables: Variables, adapters: dict[str, Any]) -> TrainState:
    """The state in which the phase of this recipe would begin, on the host's default device."""

    def of_losses(collection: str) -> dict[str, Any]:
        return {name: v[collection] for name, v in adapters.items() if collection in v}

    params = {"student": variables["params"], "adapters": of_losses("params")}
    optimizer = recipe.transform(params)
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        stats={
            "student": variables.get("batch_stats", {}),
            "adapters": of_losses("batch_stats"),
        },
        frozen=variables.get("frozen", {}),
        memory=of_losses("memory"),
        scales=jnp.ones(len(recipe.every)),
        optimizer=jax.jit(optimizer.init)(recipe.stretch.moving(params)),
        ema=dict(variables) if recipe.run.fit.ema_decay is not None else {},
    )


def _initial(recipe: Recipe, shape: Shape, start: Start) -> TrainState:
    run = recipe.run
    # Whoever learns from another draws other weights; a baseline draws the student's.
    roles = ("teacher", "student", *ASSISTANTS)
    role = roles.index("student" if run.role == "baseline" else run.role)
    stream = jax.random.fold_in(jax.random.key(run.seed), INITIAL_WEIGHTS)
    key, adapter_key = jax.random.split(jax.random.fold_in(stream, role))
    adapters = initial_adapters(recipe.every, run.model, recipe.teaching, shape, adapter_key)
    return initial_state(recipe, start(initial_variables(run.model, shape, key)), adapters)
