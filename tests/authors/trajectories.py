"""Ten steps of the methods of two stages, through presets, phases and optimizers, beside theirs."""

import dataclasses
from typing import Any

import jax
import numpy as np
from flax.traverse_util import flatten_dict

from configs.cifar100 import config
from kdjax.experiment import Data
from kdjax.experiment.runs import student_run
from kdjax.models import NAMED
from kdjax.students.torch_weights import from_torch, slots, to_torch
from kdjax.training.beginning import initial_state
from kdjax.training.parallel import Devices, fetch
from kdjax.training.programs import Programs
from kdjax.training.recipe import Recipe
from kdjax.training.state import Fixed, adapter_shapes
from kdjax.types import Batch
from tests.authors.inputs import CLASSES, EXAMPLES, MEAN, STD, images, labels, thinned
from tests.authors.names import drawn, theirs
from tests.authors.names import to_torch as own_to_torch
from tests.authors.ours import OURS
from tests.authors.record import NUMBERS
from tests.losses.support import error
from tests.torch_parity.inputs import draw

SHAPE = (32, 32, 3)
STEPS = 5
"""Of each stage; a batch of all images is an epoch."""
TEACHERS = {"ab": "resnet8x4", "fsp": "resnet14", "ft": "resnet8x4"}


def trajectory(method: str) -> dict[str, np.ndarray]:
    """What the student and its adapters are after each stage, as `pretraining` has theirs."""
    teacher, student = (_model(name) for name in (TEACHERS[method], "resnet8"))
    recipe = Recipe.of(_run(method, teacher, student), teacher, EXAMPLES)
    devices = Devices("pmap", 1)
    programs = Programs(recipe, devices, together=1)
    state = devices.replicate(jax.device_get(_start(recipe, method, teacher, student)))
    fixed = Fixed(devices.replicate(_weights(teacher)))
    found = {}
    for step in range(2 * STEPS):
        phase = programs.of(step)
        if step == STEPS:
            state = phase.open(state, fixed, devices.split(_batch(step)))
        state, _ = phase.advance(range(step, step + 1))(state, fixed, devices.split(_batch(step)))
        if step == STEPS - 1:
            found |= _state("first", method, student, fetch(state))
    programs.close()
    return found | _state("second", method, student, fetch(state))


def gaps(method: str) -> dict[str, float]:
    """How far each array is from theirs, relative to its largest number.

    PyTorch's running variances are n / (n - 1) times ours, of the n pixels of a batch.
    """
    found = trajectory(method)
    with np.load(NUMBERS / "pretraining.npz") as file:
        return {key: error(array, file[f"{method}/{key}"]) for key, array in found.items()}


def _model(name: str) -> Any:
    return NAMED[name].clone(num_classes=CLASSES, mean=MEAN, std=STD)


def _run(method: str, teacher: Any, student: Any) -> Any:
    """A cell of the table, whose first phase has five epochs, with other networks."""
    cell = config("resnet56-resnet20", method, length=8.0 * STEPS)
    fit = dataclasses.replace(cell.student.fit, batch_size=EXAMPLES)
    experiment = dataclasses.replace(
        cell,
        data=Data(),
        teacher=dataclasses.replace(cell.teacher, model=teacher),
        student=dataclasses.replace(cell.student, model=student, fit=fit),
    )
    return student_run(experiment, teacher, SHAPE, None)


def _weights(model: Any) -> Any:
    found = {s.key: draw(s.key, s.torch_shape) for s in slots(model, SHAPE, model.torch_names()[0])}
    return from_torch(model, found, SHAPE)


def _start(recipe: Recipe, method: str, teacher: Any, student: Any) -> Any:
    shapes = adapter_shapes(recipe.every, student, teacher, SHAPE)
    adapters = {
        name: {**jax.tree.map(_fresh, dict(own)), "params": drawn(OURS[method], own["params"])}
        for name, own in shapes.items()
        if "params" in own
    }
    return initial_state(recipe, _weights(student), adapters)


def _fresh(leaf: Any) -> np.ndarray:
    return np.zeros(leaf.shape, leaf.dtype)


def _batch(step: int) -> Batch:
    place = np.arange(EXAMPLES, dtype=np.int32)
    epoch = np.full(EXAMPLES, step, np.int32)
    label = labels().astype(np.int32)
    return Batch(images(), label, place, epoch, epoch, np.ones(EXAMPLES, bool))


def _state(stage: str, method: str, student: Any, state: Any) -> dict[str, np.ndarray]:
    variables = {"params": state.params["student"], "batch_stats": state.stats["student"]}
    found = {f"student/{k}": v for k, v in to_torch(student, variables, SHAPE).items()}
    for own in state.params["adapters"].values():
        for path, leaf in flatten_dict(own, sep="/").items():
            key = theirs(OURS[method], path)
            found[f"own/{key}"] = own_to_torch(OURS[method], path, np.asarray(leaf))
    return {f"{stage}/{key}": thinned(array) for key, array in found.items()}
