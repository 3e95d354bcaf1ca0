"""Every cell of the CIFAR-100 tables takes its first steps: its own losses, phases and optimizer.

The networks are those of the table; the images are drawn, and few. What a teacher says of them is
asked once: in evaluation mode, about one batch, it says the same in every step of every cell.
`CELLS=all` takes all pairs of the table.
"""

import dataclasses
import functools
import os

import flax.linen as nn
import jax
import numpy as np
import pytest

from kdjax.experiment.phases import begins
from kdjax.experiment.runs import student_run
from kdjax.models import VisionModel, infer
from kdjax.students.first_weights import first_weights
from kdjax.students.recalibrate import recalibrate
from kdjax.training.beginning import begin
from kdjax.training.parallel import Devices, fetch
from kdjax.training.programs import PhasePrograms
from kdjax.training.recipe import Recipe
from kdjax.training.state import Fixed, initial_variables
from kdjax.types import Batch, Outputs
from tests.test_benchmarks import METHODS, PAIRS, UNEQUAL, cell, table

pytestmark = pytest.mark.slow

SHAPE, EXAMPLES, STEPS, RATE = (32, 32, 3), 16, 4, 1e-4
SOME = ("vgg13-vgg8", "resnet32x4-resnet8x4", "resnet50_cifar-mobilenet_v2_half")
"""Plain, residual, and of another kind than its teacher."""
CELLS = [
    (pair, method)
    for pair in (PAIRS if os.environ.get("CELLS") == "all" else SOME)
    for method in METHODS
    if not (method in ("fsp", "kdsvd") and pair in UNEQUAL)  # they are refused
]


class Recorded(VisionModel):
    """A network that says of the one batch what another one said of it."""

    of: str = ""

    @nn.compact
    def __call__(self, images, train=False):
        del train
        said = teacher(self.of)[0]
        zeros = nn.initializers.zeros
        kept = [self.param(f"said{i}", zeros, x.shape) for i, x in enumerate(jax.tree.leaves(said))]
        found = jax.tree.unflatten(jax.tree.structure(said), [x[: len(images)] for x in kept])
        return found._replace(features={name: found.features[name] for name in said.features})


@functools.cache
def batch() -> Batch:
    """Noise, each image of its own tint; classes from all over."""
    rng = np.random.default_rng(0)
    tint = rng.uniform(0, 1, (EXAMPLES, 1, 1, 3))
    image = (tint * rng.integers(0, 256, (EXAMPLES, *SHAPE))).astype(np.uint8)
    index, zero = np.arange(EXAMPLES, dtype=np.int32), np.zeros(EXAMPLES, np.int32)
    label = np.linspace(0, 99, EXAMPLES).astype(np.int32)
    return Batch(image, label, index, zero, zero, np.ones(EXAMPLES, bool))


@functools.cache
def teacher(name) -> tuple[Outputs, dict]:
    """What the network says with fresh weights and the batch's statistics, and its classifier."""
    with jax.ensure_compile_time_eval():  # it is asked for first inside a trace
        model = table["model"](name)
        variables = jax.device_get(initial_variables(model, SHAPE, jax.random.key(7)))
        variables = recalibrate(model, variables, [batch().image])
        said = jax.device_get(jax.jit(functools.partial(infer, model))(variables, batch().image))
    return said, variables["params"]["classifier"]


@functools.cache
def drawn(model):
    return jax.device_get(initial_variables(model, SHAPE, jax.random.key(3)))


def leaves(tree):
    found = jax.tree_util.tree_leaves_with_path(tree)
    name = jax.tree_util.keystr
    return {name(path, simple=True, separator="/"): np.asarray(leaf) for path, leaf in found}


def slower(how):
    """A fit or a phase at a rate so small that the loss falls at once, however heavy its terms."""
    return dataclasses.replace(how, schedule=dataclasses.replace(how.schedule, peak=RATE))


def rests(path, phase, adapters):
    """What a phase does not name, what it freezes, and the parameters of other phases' losses."""
    named = any(begins(start, path) for start in phase.train)
    frozen = any(begins(start, path) for start in phase.freeze)
    others = path.startswith("adapters/") and path.split("/")[1] not in adapters
    return not named or frozen or others


def check_moved(before, after, phase, adapters):
    for of in ("params", "stats"):
        old, new = leaves(getattr(before, of)), leaves(getattr(after, of))
        moved = {path for path in old if not np.array_equal(old[path], new[path])}
        still = {path for path in old if rests(path, phase, adapters)}
        assert moved & still == set(), "what rests has moved"
        assert old.keys() - moved - still == set(), "what learns has not moved"
    old, new = leaves(before.frozen), leaves(after.frozen)
    assert all(np.array_equal(old[path], new[path]) for path in old)


@pytest.mark.parametrize(("pair", "method"), CELLS, ids=["-".join(cell) for cell in CELLS])
def test_a_cell_takes_its_first_steps(pair, method):
    name = pair.split("-")[0]
    said, classifier = teacher(name)
    experiment = cell(pair, method, length=80)  # an epoch is a step: none of its rates falls yet
    run = student_run(experiment, experiment.teacher.model, SHAPE, None)
    fit = slower(dataclasses.replace(run.fit, batch_size=EXAMPLES))
    fit = dataclasses.replace(fit, phases=tuple(map(slower, fit.phases)))
    run = dataclasses.replace(run, data=dataclasses.replace(run.data, augment=()), fit=fit)
    model = Recorded(num_classes=100, of=name)
    words = {f"said{i}": x for i, x in enumerate(jax.tree.leaves(said))}
    variables = {"params": {**words, "classifier": classifier}}
    recipe = Recipe.of(run, model, EXAMPLES)

    def start(fresh):
        return first_weights(model, variables, run.model, fresh, None, SHAPE, list)

    devices = Devices(count=1)
    fixed, seen = devices.replicate(Fixed(variables)), devices.split(batch())
    state = devices.replicate(begin(recipe, SHAPE, start))
    for stretch in recipe.stretches:
        phase = PhasePrograms(recipe.at(stretch.first), devices, 1)
        if stretch.first:
            state = state._replace(step=devices.replicate(np.int32(stretch.first)))
            state = phase.open(state, fixed, seen)
        before, losses = fetch(state), []
        assert stretch.stop - stretch.first >= STEPS
        for _ in range(STEPS):
            state, metrics = phase.advance(range(1))(state, fixed, seen)
            terms = fetch(metrics)[3 : 3 + len(stretch.terms)]
            losses.append(np.dot([term.weight for term in stretch.terms], terms))
        after = fetch(state)
        assert all(np.isfinite(x).all() for x in jax.tree.leaves(after)), losses
        assert losses[-1] < losses[0], losses
        check_moved(before, after, stretch.phase, stretch.adapters)
