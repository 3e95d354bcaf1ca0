"""What a run needs of its networks and data, looked at before it starts. Allocates nothing."""

import math
from collections.abc import Sequence
from functools import partial
from typing import Any, get_args

import jax
import jax.numpy as jnp
import numpy as np
from flax.errors import InvalidRngError
from jaxtyping import Array

from kdjax.cache.reads import check_mixed
from kdjax.checks import within
from kdjax.data.sources import DataSet
from kdjax.experiment import Measure, Run
from kdjax.experiment.importing import written_by_others
from kdjax.experiment.metrics import named
from kdjax.experiment.objective import adapter_names
from kdjax.experiment.runs import field_of
from kdjax.losses import DistillationLoss, Loss
from kdjax.models import Model, Network, infer, learn
from kdjax.models.summary import Shape, abstract_variables, is_random, output_shapes
from kdjax.training.beginning import shapes
from kdjax.training.device_loss import MUTABLE, loss_variables
from kdjax.training.parts import kinds, paths
from kdjax.training.recipe import Recipe, class_counts
from kdjax.training.state import EXAMPLES, adapter_shapes, dummy_batch
from kdjax.types import AXIS, Variables


def check_run(run: Run, teacher: Model | None, dataset: DataSet) -> Recipe:
    """The run in steps; ValueError unless what its losses read and its phases train is there."""
    info = dataset.info
    if type(run.model) not in get_args(Network):
        _check_own_network(run.model, info.shape)
    per_class = class_counts(run, info, partial(dataset.open, "train"))
    recipe = Recipe.of(run, teacher, info.sizes["train"], per_class)
    check_mixed(run, recipe.every, recipe.teaching, info.shape)
    params = shapes(recipe, info.shape).params
    recipe.check(params)
    for term, adapter in zip(recipe.every, adapter_names(recipe.every), strict=True):
        if type(term.loss) not in get_args(Loss):
            _check_own_loss(recipe, term.loss, adapter, info.shape)
    check_metrics(run.metrics, run.model, teacher, info.shape)
    for i, phase in enumerate(run.fit.phases):
        with within(f"{field_of(run.role)}.fit.phases.{i}"):
            phase.check_paths(paths(params))
    return recipe


def _check_own_network(model: Model, shape: Shape) -> None:
    """Whether a network of the user's own draws random numbers for each example only."""
    with written_by_others(type(model)):
        alone = _draws_by_itself(model, shape)
    if alone:
        raise ValueError(
            f"{type(model).__name__}: draws random numbers by itself, which would be those of a "
            "device and not of an example; let layers nn.Dropout of flax.linen draw them."
        )


def _draws_by_itself(model: Model, shape: Shape) -> bool:
    local = model.clone(sync_batch_norm=False)

    def dropping_nothing(variables: Variables, images: Array) -> Any:
        return learn(local, variables, images, None)

    images = jax.ShapeDtypeStruct((EXAMPLES, *shape), jnp.uint8)
    try:
        trace = jax.make_jaxpr(dropping_nothing)(abstract_variables(model, shape), images)
    except InvalidRngError:  # `make_rng` of a name that nobody gives it
        return True
    return is_random(trace.jaxpr)


def _check_own_loss(recipe: Recipe, loss: DistillationLoss, adapter: str, shape: Shape) -> None:
    """Whether a loss of the user's own keeps in a step what it has at the beginning."""
    name, teacher = type(loss).__name__, recipe.teaching
    own = adapter_shapes(recipe.every, recipe.run.model, teacher, shape).get(adapter, {})
    if lost := ", ".join(sorted(own.keys() - {"params", *MUTABLE})):
        raise ValueError(
            f"{name}: its variables in {lost} would be lost; keep them in params, batch_stats or "
            "memory."
        )
    if "memory" in own and not loss.whole_batch:
        raise ValueError(
            f"{name}: memory is that of losses of the whole batch; set whole_batch = True."
        )
    weights = None if teacher is None else abstract_variables(teacher, shape)
    outputs = [None if m is None else output_shapes(m, shape) for m in (recipe.run.model, teacher)]

    def step(variables: Variables, weights: Variables | None, key: Array, outputs: Any) -> Any:
        seen, batch = loss_variables(loss, variables, weights), dummy_batch(shape, 1)
        return loss.apply(seen, *outputs, batch, rngs={"loss": key}, mutable=list(MUTABLE))[1]

    key = jax.eval_shape(lambda: jax.random.key(0))
    on_a_device = jax.vmap(step, (None, None, None, None), axis_name=AXIS, axis_size=1)
    with written_by_others(type(loss)):
        after = jax.eval_shape(on_a_device, own, weights, key, outputs)
    for collection in own.keys() & set(MUTABLE):
        if kinds(after.get(collection, {}), skip=1) != kinds(own[collection]):
            raise ValueError(
                f"{name}: its {collection} after a step differs from that before in structure, "
                "shape or type; keep them."
            )


def check_metrics(
    metrics: Sequence[Measure], model: Model, teacher: Model | None, shape: Shape
) -> None:
    """ValueError unless each metric makes a number of what the network says of examples."""
    for metric in named(metrics, taught=teacher is not None).values():
        with written_by_others(type(metric)):
            _check_metric(metric, model, teacher, shape)


def _check_metric(metric: Measure, model: Model, teacher: Model | None, shape: Shape) -> None:
    count = model.num_classes + 1  # no axis of classes is as long
    weights = [None if m is None else abstract_variables(m, shape) for m in (model, teacher)]

    def numbers(weights: Variables, teaches: Any) -> Any:
        batch = dummy_batch(shape, count)
        target = None if teacher is None else infer(teacher, teaches, batch.image)
        return metric(infer(model, weights, batch.image), target, batch)

    found, name = jax.eval_shape(numbers, *weights), type(metric).__name__
    array = isinstance(found, jax.ShapeDtypeStruct)
    if not array or found.shape[:1] != (count,) or found.dtype != jnp.float32:
        what = f"{found.dtype}{list(found.shape)}" if array else f"a {type(found).__name__}"
        raise ValueError(
            f"{name} returns {what} for a batch of {count} examples; it must be float32, its first "
            "axis that of the examples."
        )
    value = metric.value(np.full(found.shape[1:], 0.5))
    if not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(
            f"{name}: its value is {value!r} where all means are 0.5; it must be a finite number."
        )
