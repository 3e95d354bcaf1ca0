"""A few steps of real training, on any layout of devices."""

import dataclasses
import functools

import jax
import numpy as np

from kdjax.experiment import Data, Run
from kdjax.experiment.objective import Term
from kdjax.experiment.schedules import Cosine
from kdjax.losses import CrossEntropy, SoftTarget
from kdjax.models import Model, SmallCNN
from kdjax.students.first_weights import first_weights
from kdjax.training.beginning import initial_state
from kdjax.training.feed import stream_of
from kdjax.training.parallel import Devices, fetch
from kdjax.training.recipe import Recipe
from kdjax.training.state import Fixed, initial_adapters, initial_variables
from kdjax.training.step import make_train_step
from tests.support import TINY, tiny_fit

SHAPE = (8, 8, 1)
TEACHER = SmallCNN(widths=(6, 12), hidden=24, mean=(0.305,), std=(0.376,))
LOSSES = (Term(CrossEntropy(), 0.3), Term(SoftTarget(temperature=3.0), 0.7))


def make_run(**fields) -> Run:
    fit = tiny_fit(batch_size=32, schedule=Cosine(peak=0.05))
    base = Run(role="student", seed=0, data=Data(), model=TINY, losses=LOSSES, fit=fit)
    return dataclasses.replace(base, **fields)


@functools.cache
def random_teacher():
    with jax.ensure_compile_time_eval():  # it may be asked for first inside a trace
        return jax.device_get(initial_variables(TEACHER, SHAPE, jax.random.key(7)))


@functools.cache
def fresh_variables(model: Model):
    with jax.ensure_compile_time_eval():
        return jax.device_get(initial_variables(model, SHAPE, jax.random.key(3)))


def first_state(run: Run, recipe: Recipe):
    key = jax.random.key(3)
    adapters = initial_adapters(recipe.every, run.model, TEACHER, SHAPE, key)
    fresh = fresh_variables(run.model)
    variables = first_weights(TEACHER, random_teacher(), run.model, fresh, None, SHAPE, list)
    return initial_state(recipe, variables, adapters)


def start(run: Run, recipe: Recipe):
    return jax.device_get(first_state(run, recipe))


def each_step(run, source, teacher, layout=("pmap", 1), steps=4):
    """The state on the devices after every step (the next one takes it), its metrics, the teacher.

    One compilation, whatever the number of steps.
    """
    recipe = Recipe.of(run, TEACHER, len(source))
    backend, count = layout
    devices = Devices(backend, count)
    step = devices.spread(make_train_step(recipe), donate=True)
    state, frozen = devices.replicate(start(run, recipe)), devices.replicate(teacher)
    stream = stream_of(run, source)
    rows = devices.rows(run.fit.batch_size, run.fit.accumulate)
    for i in range(steps):
        state, metrics = step(state, Fixed(frozen), devices.split(stream.batch(i, rows)))
        yield state, fetch(metrics), frozen


def train(run, source, teacher, layout=("pmap", 1), steps=4):
    """The state on the devices, the metrics of every step, and the teacher on the devices."""
    history = []
    for state, metrics, frozen in each_step(run, source, teacher, layout, steps):  # noqa: B007
        history.append(metrics)
    return state, np.array(history), frozen


def first_and_last_values(digits, term: Term, student: Model = TINY) -> tuple[float, float]:
    """Of a term that this student learns from alone: the mean of the first and last steps."""
    fit = tiny_fit(batch_size=128, schedule=Cosine(peak=0.05))
    run = make_run(model=student, losses=(term,), fit=fit)
    _, history, _ = train(run, digits.open("train"), random_teacher(), steps=12)
    values = history[:, 3]
    return values[:3].mean(), values[-3:].mean()
