"""What every loss costs: time and memory of a training step beside that with `SoftTarget`.

    python benchmarks/losses.py benchmarks/losses-cpu.json [LOSS ...]

A step with `CrossEntropy` and the loss is compared with one with `CrossEntropy` and `SoftTarget`:
teacher resnet32x4, student resnet8x4, 64 random images of 32x32x3 of a split of 50,000, 100
classes, one device, through `make_train_step` and `Devices.spread`. Losses have their defaults. A
loss without a teacher is measured with `SoftTarget` in both steps, so that the teacher answers in
both. `DML`, `DistillationToken` and `SimKD` need other students, and `SoftTarget` gets the same.

Time: the ratio of the medians of steps that take turns, `SoftTarget` and a few losses, then
`SoftTarget` again; by the clock, and of the processor, which other work on the machine disturbs
less and which is printed where networks run on it. The row of `SoftTarget` compares two copies of
it: what it differs from one is noise. Memory: the difference of what the compiled step needs beside
its arguments, plus that of the states, which hold adapters, their momentum and banks. For `RKD` a
batch of 512 too, compiled only.

With names, only these losses are measured, and their rows in the file replaced.
"""

import json
import os
import platform
import sys
import time
import typing
from collections.abc import Iterator, Sequence
from datetime import date
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import numpy as np

from kdjax.experiment import Data, Fit, Run
from kdjax.experiment.objective import Term
from kdjax.experiment.optim import SGD
from kdjax.experiment.schedules import Constant
from kdjax.losses import (
    DML,
    RKD,
    CrossEntropy,
    DistillationLoss,
    DistillationToken,
    Loss,
    SimKD,
    SoftTarget,
)
from kdjax.models import NAMED, Ensemble, Model, ViT
from kdjax.models.reused_classifier import reusing
from kdjax.training.beginning import initial_state
from kdjax.training.parallel import Devices
from kdjax.training.recipe import Recipe
from kdjax.training.state import Fixed, initial_adapters, initial_variables
from kdjax.training.step import make_train_step
from kdjax.types import Batch

SHAPE, CLASSES, EXAMPLES, BATCH = (32, 32, 3), 100, 50_000, 64
TEACHER = NAMED["resnet32x4"].clone(num_classes=CLASSES)
STUDENT = NAMED["resnet8x4"].clone(num_classes=CLASSES)
OTHER_STUDENTS: dict[type, Model] = {
    DML: Ensemble(num_classes=CLASSES, members=(STUDENT, STUDENT)),
    DistillationToken: ViT(
        num_classes=CLASSES, patch=4, image_size=SHAPE[:2], distillation_token=True
    ),
    SimKD: reusing(STUDENT, TEACHER, SHAPE, "SimKD"),
}
ROUNDS, TOGETHER = 5, 6
"""Steps of each program, and losses that take turns with one `SoftTarget`."""


class Program:
    """A compiled step, and the state it goes on from."""

    def __init__(self, loss: DistillationLoss, student: Model, batch_size: int = BATCH) -> None:
        shown = (SoftTarget(), loss) if not loss.needs_teacher else (loss,)
        terms = tuple(map(Term, (CrossEntropy(), *shown)))
        still = Fit(batch_size=batch_size, optimizer=SGD(), schedule=Constant(peak=1e-9))
        run = Run(role="student", seed=0, data=Data(), model=student, losses=terms, fit=still)
        recipe, key = Recipe.of(run, TEACHER, EXAMPLES), jax.random.key(0)
        adapters = initial_adapters(recipe.every, student, TEACHER, SHAPE, key)
        state = initial_state(recipe, weights(student), adapters)
        devices = Devices(count=1)
        self.state = devices.replicate(jax.device_get(state))
        self.rest = (
            Fixed(devices.replicate(weights(TEACHER))),
            devices.split(random_batch(batch_size)),
        )
        step = devices.spread(make_train_step(recipe), donate=True)
        self.step = step.compile(self.state, *self.rest)

    def bytes(self) -> int:
        """Of intermediate results and of the state."""
        held = sum(leaf.nbytes for leaf in jax.tree.leaves(self.state))
        return held + self.step.memory_analysis().temp_size_in_bytes

    def seconds(self) -> tuple[float, float]:
        """Of one step: by the clock, and of the processor."""
        began = time.perf_counter(), time.process_time()
        self.state, metrics = self.step(self.state, *self.rest)
        jax.block_until_ready((self.state, metrics))
        return time.perf_counter() - began[0], time.process_time() - began[1]


@cache
def weights(model: Model) -> dict[str, Any]:
    return jax.device_get(initial_variables(model, SHAPE, jax.random.key(1)))


def random_batch(size: int) -> Batch:
    rng = np.random.default_rng(0)
    index = rng.choice(EXAMPLES, size, replace=False).astype(np.int32)
    return Batch(
        image=rng.integers(0, 256, (size, *SHAPE), dtype=np.uint8),
        label=rng.integers(0, CLASSES, size, dtype=np.int32),
        index=index,
        epoch=np.zeros(size, np.int32),
        view=np.zeros(size, np.int32),
        mask=np.ones(size, bool),
    )


def mebibytes(ours: Program, base: Program) -> float:
    return round((ours.bytes() - base.bytes()) / 2**20, 2)


@cache
def soft_target(student: Model) -> Program:
    return Program(SoftTarget(), student)


def compare(kinds: Sequence[type], student: Model) -> dict[str, dict[str, float]]:
    """Rows of a few losses, which take turns with `SoftTarget`."""
    base = soft_target(student)
    programs = [base, *(Program(kind(), student) for kind in kinds)]
    for program in programs:
        program.seconds()  # the first step warms up
    turns = np.array([[program.seconds() for program in programs] for _ in range(ROUNDS)])
    clock, processor = np.moveaxis(np.median(turns, axis=0), -1, 0)
    return {
        kind.__name__: {
            "time": round(clock[i] / clock[0], 3),
            "processor_time": round(processor[i] / processor[0], 3),
            "mebibytes": mebibytes(programs[i], base),
            "seconds": round(clock[i], 3),
            "soft_target_seconds": round(clock[0], 3),
            "steps": ROUNDS,
        }
        for i, kind in enumerate(kinds, start=1)
    }


def groups(kinds: Sequence[type]) -> Iterator[tuple[Sequence[type], Model]]:
    """Losses that are measured together, and the student they are measured in."""
    usual = [kind for kind in kinds if kind not in OTHER_STUDENTS]
    for first in range(0, len(usual), TOGETHER):
        yield usual[first : first + TOGETHER], STUDENT
    yield from (([kind], OTHER_STUDENTS[kind]) for kind in kinds if kind in OTHER_STUDENTS)


def about() -> dict[str, str | int]:
    device = jax.devices()[0]
    return {
        "command": "python benchmarks/losses.py OUT",
        "date": date.today().isoformat(),
        "device": device.device_kind,
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "python": platform.python_version(),
        **{library: version(library) for library in ("jax", "flax", "optax")},
        "batch": BATCH,
    }


def column(name: str, row: dict[str, float]) -> str:
    """As in `docs/methods.md`."""
    ratio = row["processor_time" if jax.default_backend() == "cpu" else "time"]
    return f"| `{name}` | {ratio:.2f} x, {row['mebibytes']:+.1f} MiB |"


def main(output: str, *names: str) -> None:
    path = Path(output)
    found = json.loads(path.read_text()) if names else {"losses": {}}
    asked = [kind for kind in typing.get_args(Loss)[:-1] if not names or kind.__name__ in names]
    for kinds, student in groups(asked):
        for name, row in compare(kinds, student).items():
            found["losses"][name] = row
            print(column(name, row), flush=True)
        path.write_text(json.dumps({**found, "about": about()}, indent=1) + "\n")
    if RKD in asked:
        large = (Program(loss, STUDENT, 512) for loss in (RKD(), SoftTarget()))
        found["rkd_512_mebibytes"] = mebibytes(*large)
        print(f"RKD, batch of 512: {found['rkd_512_mebibytes']:+.1f} MiB")
        path.write_text(json.dumps({**found, "about": about()}, indent=1) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
