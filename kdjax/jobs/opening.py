"""Before a job starts: what its stages work with, and what they would fail at. Knows no stage."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import jax

from kdjax.data.sources import DataSet
from kdjax.evaluation.load import Loaded, as_teacher
from kdjax.evaluation.of_run import open_experiment_data
from kdjax.evaluation.probe import Probe
from kdjax.experiment import Experiment, Fit, Run
from kdjax.experiment.json import to_dict
from kdjax.experiment.rules import check_views, validate
from kdjax.experiment.runs import baseline_run, chain, field_of, teacher_run
from kdjax.jobs import cache
from kdjax.jobs.checking import check_metrics, check_run
from kdjax.training.log import Reporter
from kdjax.training.loop import Job
from kdjax.training.parallel import Devices, set_up_compilation_cache
from kdjax.training.preemption import Preemption
from kdjax.training.processes import connect, from_first
from kdjax.training.run_directory import RunDirectory, locked, write_json


@dataclass(frozen=True)
class Work:
    """What every stage of a job is given."""

    experiment: Experiment
    path: Path
    """The work directory."""
    dataset: DataSet
    job: Job
    named: Loaded | None
    """The teacher that `teacher.run` names; None: the job trains its own."""

    def directory(self, role: str) -> RunDirectory:
        """Where the run of this role lives."""
        return RunDirectory(self.path / role)

    @cached_property
    def probe(self) -> Probe:
        """The validation images that networks are looked at with."""
        source, classes = self.dataset.open("validation"), len(self.dataset.info.classes)
        batch_size = self.experiment.runtime.eval_batch_size
        return Probe(source, classes, self.job.devices, batch_size)


@contextmanager
def opened(experiment: Experiment, workdir: Path) -> Iterator[Work]:
    """A job that may start; ValueError for whatever can be refused before it does."""
    validate(experiment)
    runtime = experiment.runtime
    connect(runtime.processes)
    if runtime.compilation_cache:
        set_up_compilation_cache()
    first = jax.process_index() == 0
    with locked(workdir) if first else nullcontext(), Preemption() as preemption:
        dataset = open_experiment_data(experiment)
        if from_first(dataset.info.fingerprint) != dataset.info.fingerprint:
            raise ValueError(
                f"data.name: process {jax.process_index()} sees another {dataset.info.name} than "
                "process 0; give all of them the same files."
            )
        devices = Devices(runtime.backend, runtime.devices)
        job = Job(devices, runtime, Reporter(speaks=first), stop=preemption.poll, writes=first)
        work = Work(experiment, workdir, dataset, job, _named_teacher(experiment, dataset))
        _check(work)
        if first:
            write_json(workdir / "experiment.json", to_dict(experiment))
        yield work


def _named_teacher(experiment: Experiment, dataset: DataSet) -> Loaded | None:
    spec = experiment.teacher
    return None if spec.run is None else as_teacher(spec.run, spec.checkpoint, dataset.info)


def _check(work: Work) -> None:
    """Refuse what would fail later: batches, views, and directories of other experiments."""
    experiment, info = work.experiment, work.dataset.info
    if work.named is None:
        _check_batch(work, "teacher", experiment.teacher.fit)
        check_run(teacher_run(experiment), None, work.dataset)
        _check_directory(work, teacher_run(experiment))
    model = work.named.model if work.named else experiment.teacher.model
    if work.named is not None:
        check_metrics(experiment.metrics, model, None, info.shape)
    check_views(experiment.data, info.shape)
    for run, teaching in chain(experiment, model, info.shape):
        _check_batch(work, field_of(run.role), run.fit)
        check_run(run, teaching, work.dataset)
        cache.check(run, teaching, info)
        _check_directory(work, run)
    alone = baseline_run(experiment, model, info.shape)
    if experiment.baseline:
        check_run(alone, None, work.dataset)
    _check_directory(work, alone)


def _check_batch(work: Work, where: str, how: Fit) -> None:
    field, examples = f"{where}.fit.batch_size", work.dataset.info.sizes["train"]
    work.job.devices.check_batch(field, how.batch_size, how.accumulate)
    if how.batch_size > examples:
        raise ValueError(
            f"{field}: {how.batch_size} is more than the {examples} training examples."
        )


def _check_directory(work: Work, run: Run) -> None:
    """The teacher's weights are not known yet; its stage compares them when they are."""
    work.directory(run.role).check(run, work.dataset.info, compare_teacher=False)
