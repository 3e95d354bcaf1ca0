"""Small experiments that a test can afford to run."""

import dataclasses
from pathlib import Path
from typing import Any

import jax
import numpy as np

from kdjax.experiment import Data, Experiment, Fit, Run, Runtime, Student, Teacher
from kdjax.experiment.objective import Term
from kdjax.experiment.optim import SGD
from kdjax.experiment.runs import teacher_run
from kdjax.experiment.schedules import Cosine
from kdjax.losses import CrossEntropy
from kdjax.models import SmallCNN

TINY = SmallCNN(widths=(4, 8), hidden=16, mean=(0.305,), std=(0.376,))


def tiny_fit(**fields: Any) -> Fit:
    """About nine steps an epoch on the training split of the digits."""
    base = Fit(epochs=1, batch_size=128, optimizer=SGD(), schedule=Cosine(peak=0.05))
    return dataclasses.replace(base, **fields)


def tiny_experiment(directory: Path, **fit: Any) -> Experiment:
    """A teacher of 3,000 parameters and its half."""
    return Experiment(
        name="tiny",
        data=Data(directory=str(directory)),
        teacher=Teacher(model=TINY, fit=tiny_fit(**fit)),
        student=Student(fit=tiny_fit(**fit)),
        runtime=Runtime(log_every=3, compilation_cache=False, eval_batch_size=128),
    )


def tiny_run(directory: Path, **fields: Any) -> Run:
    """A run without a teacher."""
    run = teacher_run(tiny_experiment(directory))
    return dataclasses.replace(run, losses=(Term(CrossEntropy()),), **fields)


def largest_difference(a: Any, b: Any) -> float:
    """Over all leaves of two trees of one structure."""
    gaps = jax.tree.map(lambda x, y: np.abs(np.asarray(x) - np.asarray(y)).max(initial=0.0), a, b)
    return float(max(jax.tree.leaves(gaps)))


def data_files(directory: Path) -> list[Path]:
    """Every file of a checkpoint's item."""
    return [path for path in directory.rglob("*") if path.is_file()]


def flip(path: Path) -> None:
    """One bit, in the middle of the file."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
