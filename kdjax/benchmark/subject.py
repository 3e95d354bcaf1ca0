"""What is benchmarked: the first distillation of an experiment, with weights nobody trained."""

import dataclasses
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jax
import numpy as np

from kdjax.cache.reads import check_mixed
from kdjax.data.pipeline import TrainingStream
from kdjax.data.sources import Arrays, DataInfo, Source
from kdjax.evaluation.load import load
from kdjax.evaluation.of_run import check_fits, open_experiment_data
from kdjax.experiment import Cache, Experiment, Run
from kdjax.experiment.rules import validate
from kdjax.experiment.runs import distilled, student_run
from kdjax.models import Model
from kdjax.training.beginning import initial_state
from kdjax.training.feed import stream_of
from kdjax.training.parallel import Devices
from kdjax.training.recipe import Recipe, class_counts
from kdjax.training.state import Fixed, TrainState, initial_adapters
from kdjax.training.state import initial_variables as fresh
from kdjax.types import Batch, Variables


@dataclass(frozen=True)
class Subject:
    """A run, its teacher and its data."""

    run: Run
    teacher: Model
    info: DataInfo
    source: Source
    devices: Devices

    @cached_property
    def recipe(self) -> Recipe:
        """The run in steps, in its last phase, which is the longest as a rule."""
        per_class = class_counts(self.run, self.info, lambda: self.source)
        recipe = Recipe.of(self.run, self.teacher, len(self.source), per_class)
        return recipe.at(recipe.steps - 1)

    @cached_property
    def teacher_variables(self) -> Variables:
        """Drawn, not trained: how long it takes does not depend on what it knows."""
        return jax.device_get(fresh(self.teacher, self.info.shape, jax.random.key(1)))

    def state(self) -> TrainState:
        """Of a fresh student, on the devices."""
        key, shape = jax.random.key(2), self.info.shape
        adapters = initial_adapters(self.recipe.every, self.run.model, self.teacher, shape, key)
        variables = fresh(self.run.model, shape, key)
        state = initial_state(self.recipe, variables, adapters)
        return self.devices.replicate(jax.device_get(state))

    @cached_property
    def fixed(self) -> Fixed:
        """The teacher on the devices."""
        return Fixed(self.devices.replicate(self.teacher_variables))

    @cached_property
    def stream(self) -> TrainingStream:
        """Batches in their order."""
        return stream_of(self.run, self.source)

    @cached_property
    def rows(self) -> np.ndarray:
        """Of a global batch, in the order of the devices."""
        return self.devices.rows(self.run.fit.batch_size, self.run.fit.accumulate)

    def batch(self, **fields: Any) -> Batch:
        """The first batch, on the devices."""
        batch = self.stream.batch(0, self.rows)._replace(**fields)
        return self.devices.split(batch)


def subject_of(experiment: Experiment, synthetic: tuple[int, int, int] | None) -> Subject:
    """The experiment's first distillation; `synthetic`: on random images of this shape.

    ValueError for what the user can mend.
    """
    validate(experiment)
    info, source = _random(experiment, synthetic) if synthetic else _real(experiment)
    spec = experiment.teacher
    teacher = load(spec.run, spec.checkpoint).model if spec.run else spec.model
    role = next(iter(distilled(experiment)))
    run = student_run(experiment, teacher, info.shape, None, role)
    run = dataclasses.replace(run, cache=Cache())
    runtime = experiment.runtime
    devices = Devices(runtime.backend, runtime.devices)
    devices.check_batch("student.fit.batch_size", run.fit.batch_size, run.fit.accumulate)
    recipe = Recipe.of(run, teacher, len(source))
    check_mixed(run, recipe.every, recipe.teaching, info.shape)
    return Subject(run, teacher, info, source, devices)


def _real(experiment: Experiment) -> tuple[DataInfo, Source]:
    dataset = open_experiment_data(experiment)
    return dataset.info, dataset.open("train")


RANDOM_EXAMPLES = 4096


def _random(experiment: Experiment, shape: tuple[int, int, int]) -> tuple[DataInfo, Source]:
    spec = experiment.teacher
    model = load(spec.run, spec.checkpoint).model if spec.run else spec.model
    classes = tuple(map(str, range(model.num_classes)))
    examples = max(RANDOM_EXAMPLES, experiment.student.fit.batch_size)
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (examples, *shape), np.uint8)
    sizes = dict.fromkeys(("train", "validation", "test"), examples)
    info = DataInfo(name="synthetic", shape=shape, classes=classes, sizes=sizes, fingerprint="")
    check_fits("teacher.model", model, info)
    return info, Arrays(images, rng.integers(0, len(classes), examples))
