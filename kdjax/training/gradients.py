"""From a batch to the terms of the objective and their gradients, one device's share of them."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from kdjax.cache.answers import decode
from kdjax.data.augment import TEACHER_VIEWS, augment
from kdjax.models import Draws, infer, learn
from kdjax.training.device_loss import MUTABLE, device_loss, loss_variables
from kdjax.training.mixture import mixture
from kdjax.training.recipe import Recipe
from kdjax.training.state import Fixed, TrainState, pack
from kdjax.types import Batch, Outputs, Variables

LOSSES, NETWORK = 2, 4
"""Streams of the seed that losses and the student draw their random numbers from."""


class Remembered(NamedTuple):
    """What a batch leaves behind: statistics, and the memory of losses."""

    stats: Any
    memory: Any


def gradients_of(
    recipe: Recipe,
    state: TrainState,
    fixed: Fixed,
    batch: Batch,
    pulls: Sequence[Float[Array, " terms"]],
) -> tuple[list[Any], Remembered, Float[Array, " terms"]]:
    """The gradient of each weighted sum of the terms, what is remembered, and the terms.

    With `accumulate` the batch is seen in slices, one after the other: gradients, terms and
    statistics are averaged, so that statistics forget once a step, however many slices it has; the
    memory of losses passes from one slice to the next.
    """
    run, stretch = recipe.run, recipe.stretch
    slices = run.fit.accumulate
    sliced = jax.tree.map(lambda x: x.reshape(slices, -1, *x.shape[1:]), batch)
    teaching = state.ema if run.fit.ema_teacher else fixed.teacher
    still = stretch.still(state.params)

    def one(memory: Any, part: Batch) -> tuple[Any, Any]:
        seen, past = _seen(recipe, fixed.look_up(part)), Remembered(state.stats, memory)

        def terms(moving: Any) -> tuple[Array, Remembered]:
            params = stretch.put(still, moving)
            return terms_of(recipe, params, state.frozen, past, teaching, seen, state.step)

        values, backward, new = jax.vjp(terms, stretch.moving(state.params), has_aux=True)
        return new.memory, ([backward(pull)[0] for pull in pulls], new.stats, values)

    if slices == 1:
        memory, parts = one(state.memory, jax.tree.map(lambda x: x[0], sliced))
    else:
        # XLA's CPU backend runs convolutions inside a rolled loop 100 times slower.
        unroll = slices if jax.default_backend() == "cpu" else 1
        memory, parts = jax.lax.scan(one, state.memory, sliced, unroll=unroll)
        parts = jax.tree.map(lambda x: x.mean(axis=0), parts)
    gradients, stats, values = parts
    return gradients, Remembered(stats, memory), values


def terms_of(
    recipe: Recipe,
    params: Any,
    frozen: Any,
    past: Remembered,
    teacher: Variables | None,
    batch: Batch,
    step: Array,
) -> tuple[Float[Array, " terms"], Remembered]:
    """This device's share of each term of the global batch, before weighting."""
    model, stretch, (stats, memory) = recipe.run.model, recipe.stretch, past
    variables = pack(params["student"], stats["student"], frozen)
    draws = Draws(_key(recipe, NETWORK, step), batch.index, batch.view)
    with stretch.resting("student"):
        student, updated = learn(model, variables, batch.image, draws)
    target = _teach(recipe, teacher, batch)
    key = _key(recipe, LOSSES, step)
    trees = (params["adapters"], dict(stats["adapters"]), dict(memory))
    terms = []
    for place, name, term in zip(stretch.places, stretch.adapters, stretch.terms, strict=True):
        own = dict(zip(("params", *MUTABLE), (tree.get(name, {}) for tree in trees), strict=True))
        own = loss_variables(term.loss, own, teacher)
        drawn = jax.random.fold_in(key, place)
        with stretch.resting(f"adapters/{name}"):
            value, changed = device_loss(term.loss, own, student, target, batch, drawn)
        for collection, tree in zip(MUTABLE, trees[1:], strict=True):
            if name in tree:
                tree[name] = changed[collection]
        terms.append(value)
    stats = {"student": updated.get("batch_stats", {}), "adapters": trees[1]}
    return jnp.stack(terms), Remembered(stats, trees[2])


def _key(recipe: Recipe, stream: int, step: Array) -> Array:
    """The same on all devices, and for all slices of the batch."""
    return jax.random.fold_in(jax.random.fold_in(jax.random.key(recipe.run.seed), stream), step)


def _seen(recipe: Recipe, batch: Batch) -> Batch:
    """The batch through random views: the student's, and the teacher's where it has its own."""
    data, seed = recipe.run.data, recipe.run.seed
    seen = augment(data.augment, seed, batch, views=data.views)
    if recipe.teaching is None or data.teacher_augment is None:
        return seen
    shown = augment(data.teacher_augment, seed, batch, TEACHER_VIEWS)
    return seen._replace(shown=shown.image)


def _teach(recipe: Recipe, variables: Variables | None, batch: Batch) -> Outputs | None:
    """The teacher's outputs: always in evaluation mode, never differentiated.

    Views of its own are not mixed, so of images that the student sees mixed its answers are.
    """
    model, data = recipe.teaching, recipe.run.data
    if model is None:
        return None
    if batch.answers is not None:
        said = decode(recipe.run.cache, batch.answers, model.num_classes)
    elif variables is not None:
        images = batch.image if batch.shown is None else batch.shown
        said = jax.lax.stop_gradient(infer(model, variables, images))
    else:
        return None
    apart = batch.share is not None and data.teacher_augment is not None
    return mixture(said, batch, data.views) if apart else said
