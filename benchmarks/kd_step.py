"""The distillation step of a run, alone: what the benchmarks of a CPU time."""

import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from kdjax.experiment import Data, Fit, Run
from kdjax.experiment.objective import Term
from kdjax.experiment.optim import SGD
from kdjax.experiment.schedules import Constant
from kdjax.losses import CrossEntropy, SoftTarget
from kdjax.models import NAMED, Model, SmallCNN
from kdjax.training.beginning import initial_state
from kdjax.training.parallel import Devices
from kdjax.training.recipe import Recipe
from kdjax.training.state import Fixed, initial_adapters, initial_variables
from kdjax.training.step import make_train_step
from kdjax.types import Batch


class Pair(NamedTuple):
    teacher: Model
    student: Model
    batch: int
    shape: tuple[int, int, int]


def named(teacher: str, student: str, *rest: Any) -> Pair:
    return Pair(*(NAMED[name].clone(num_classes=100) for name in (teacher, student)), *rest)


SMALL = SmallCNN(widths=(32, 64), hidden=256), SmallCNN(widths=(8, 16), hidden=64)
Step = Callable[[], Any]


def distillation_step(pair: Pair, batch: Batch, options: dict[str, str] | None) -> Step:
    terms = (Term(CrossEntropy()), Term(SoftTarget()))
    fit = Fit(batch_size=pair.batch, optimizer=SGD(), schedule=Constant(peak=1e-9))
    run = Run(role="student", seed=0, data=Data(), model=pair.student, losses=terms, fit=fit)
    recipe, key = Recipe.of(run, pair.teacher, 50_000), jax.random.key(0)
    weights = [jax.device_get(initial_variables(model, pair.shape, key)) for model in pair[:2]]
    adapters = initial_adapters(recipe.every, pair.student, pair.teacher, pair.shape, key)
    state = initial_state(recipe, weights[1], adapters)
    devices = Devices(count=1)
    state = devices.replicate(jax.device_get(state))
    rest = Fixed(devices.replicate(weights[0])), devices.split(batch)
    spread = devices.spread(make_train_step(recipe), donate=True)
    step = spread.lower(state, *rest).compile(compiler_options=options)

    def once() -> None:
        nonlocal state
        state, metrics = step(state, *rest)
        jax.block_until_ready((state, metrics))

    return once


def random_batch(pair: Pair) -> Batch:
    rng, size = np.random.default_rng(0), pair.batch
    return Batch(
        image=rng.integers(0, 256, (size, *pair.shape), dtype=np.uint8),
        label=rng.integers(0, pair.student.num_classes, size, dtype=np.int32),
        index=np.arange(size, dtype=np.int32),
        epoch=np.zeros(size, np.int32),
        view=np.zeros(size, np.int32),
        mask=np.ones(size, bool),
    )


def seconds(steps: Mapping[str, Step], rounds: int) -> dict[str, np.ndarray]:
    """`[rounds, 2]` of each: by the clock, and of the processor. They take turns."""
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in steps}
    for turn in range(rounds + 2):  # the first two warm up
        for name, step in steps.items():
            began = time.perf_counter(), time.process_time()
            step()
            took = time.perf_counter() - began[0], time.process_time() - began[1]
            if turn > 1:
                found[name].append(took)
    return {name: np.array(times) for name, times in found.items()}
