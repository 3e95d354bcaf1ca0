"""Cutting a student from a run, before any training: how small it is, how fast, how good."""

import dataclasses
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import jax
import numpy as np

from kdjax.data.pipeline import first_batches
from kdjax.data.sources import Arrays, DataSet
from kdjax.evaluation.evaluate import Evaluate
from kdjax.evaluation.latency import latency_ms
from kdjax.evaluation.load import Loaded, load
from kdjax.evaluation.of_run import check_stands_in, open_data
from kdjax.experiment import UNKNOWN, Data, Derive, Fit, Run, Student, TeacherReference
from kdjax.experiment.runs import student_model
from kdjax.models import Model
from kdjax.models.summary import flops, parameter_count, stage_shapes
from kdjax.students.derive import derive_within
from kdjax.students.first_weights import first_weights
from kdjax.training.parallel import Devices
from kdjax.training.run_directory import RunDirectory
from kdjax.training.state import initial_variables
from kdjax.training.untrained import check_empty, write_untrained

BATCH_SIZE = 128
"""Training images looked at together."""


NOTHING = Arrays(np.zeros((1, 1, 1, 1), np.uint8), np.zeros(1, np.int32))
"""Read from zero times."""


@dataclass(frozen=True)
class Comparison:
    """A network before or after, in numbers; `top1` is None where no data is known."""

    model: Model
    parameters: int
    flops: int
    latency_ms: float
    top1: float | None
    stages: dict[str, tuple[int, ...]]


def derive_run(
    run: Path,
    how: Derive,
    *,
    checkpoint: str = "best",
    latency: float | None = None,
    data: Data | None = None,
    out: Path | None = None,
) -> dict[str, Comparison]:
    """`teacher` and `student` side by side; the student is written to `out`, if given.

    `latency` (milliseconds for one image, here) takes the place of `how`'s width. `data` stands in
    for the run's own. Without data, batch norm is not measured anew and no accuracy is known.
    """
    if out is not None:
        check_empty(RunDirectory(out))
    teacher = load(run, checkpoint)
    dataset = _data(teacher, data)
    if how.importance == "taylor" and (dataset is None or how.recalibrate < 1):
        raise ValueError(
            "--importance: taylor looks at training data; name it by --data, with --recalibrate at "
            "least 1, or choose l1 or bn_scale."
        )
    if how.importance == "taylor" and dataset is not None and not dataset.info.labelled:
        raise ValueError(
            f"--importance: taylor reads labels, and the training images of {dataset.info.name} "
            "have none; choose l1 or bn_scale."
        )
    shape = teacher.info.shape
    model = _model(teacher, how, latency)
    fresh = jax.device_get(initial_variables(model, shape, jax.random.key(0)))
    count = how.recalibrate if dataset is not None else 0
    source = dataset.open("train") if dataset is not None else NOTHING
    variables = first_weights(
        teacher.model,
        teacher.variables,
        model,
        fresh,
        how if how.inherit else None,
        shape,
        partial(first_batches, source, BATCH_SIZE, 0, count),
    )
    student = dataclasses.replace(
        teacher, run=_student_run(teacher, model, how), variables=variables
    )
    if out is not None:
        write_untrained(RunDirectory(out), student.run, teacher.info, variables)
    networks = {"teacher": teacher, "student": student}
    times = latency_ms(networks)
    return {
        role: _compare(network, times[role]["1"], dataset) for role, network in networks.items()
    }


def _data(teacher: Loaded, data: Data | None) -> DataSet | None:
    data = data or teacher.run.data
    if data.name == UNKNOWN:
        return None
    dataset = open_data(data, ("train", "validation"))
    check_stands_in(teacher, dataset.info)
    return dataset


def _model(teacher: Loaded, how: Derive, latency: float | None) -> Model:
    shape = teacher.info.shape
    if latency is None:
        return student_model(Student(derive=how), teacher.model, shape)

    def milliseconds(model: Model) -> float:
        variables = initial_variables(model, shape, jax.random.key(0))
        run = dataclasses.replace(teacher.run, model=model)
        timed = dataclasses.replace(teacher, run=run, variables=variables)
        return latency_ms({"it": timed}, rounds=20)["it"]["1"]

    whole = milliseconds(teacher.model)
    return derive_within(teacher.model, milliseconds, min(1.0, latency / whole), depth=how.depth)


def _student_run(teacher: Loaded, model: Model, how: Derive) -> Run:
    reference = TeacherReference(
        run=str(teacher.directory.absolute()), step=teacher.step, digest=teacher.digest
    )
    return dataclasses.replace(
        teacher.run,
        role="student",
        model=model,
        losses=(),
        fit=Fit(epochs=0),
        teacher=reference,
        inherit=how if how.inherit else None,
        imported=None,
        copied=(),
    )


def _compare(network: Loaded, milliseconds: float, dataset: DataSet | None) -> Comparison:
    shape = network.info.shape
    top1 = None
    if dataset is not None:
        source = dataset.open("validation")
        evaluate = Evaluate(network.model, source, Devices(), 512)
        top1 = evaluate(network.variables)["top1"]
    return Comparison(
        model=network.model,
        parameters=parameter_count(network.model, shape),
        flops=flops(network.model, shape),
        latency_ms=milliseconds,
        top1=top1,
        stages=stage_shapes(network.model, shape),
    )
