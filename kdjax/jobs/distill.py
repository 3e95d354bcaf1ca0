"""The whole job: teacher, baseline, assistants, student, evaluation, export, report.

Every stage leaves a file when it is finished and is skipped when that file is there, so a job that
was stopped anywhere goes on when the same command is given again.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import cached_property, partial
from importlib.metadata import version
from pathlib import Path
from platform import python_version
from typing import Any

import jax

from kdjax import __version__
from kdjax.data.pipeline import first_batches
from kdjax.data.sources import DataSet
from kdjax.deploy.export import export
from kdjax.evaluation.analysis import analyse
from kdjax.evaluation.doubts import outdone
from kdjax.evaluation.evaluate import make_evaluate
from kdjax.evaluation.latency import latency_ms
from kdjax.evaluation.load import Loaded, as_teacher, load
from kdjax.evaluation.of_run import open_experiment_data, provenance, verification_images
from kdjax.evaluation.probe import Probe
from kdjax.experiment import Experiment, Fit, Run, TeacherReference
from kdjax.experiment.json import read_json, to_dict
from kdjax.experiment.objective import for_examples
from kdjax.experiment.rules import check_views, validate
from kdjax.experiment.runs import (
    baseline_run,
    chain,
    distilled,
    field_of,
    roles,
    student_run,
    teacher_run,
)
from kdjax.jobs import cache
from kdjax.models.summary import Shape, flops, parameter_count
from kdjax.report.page import build, read_job
from kdjax.students.first_weights import first_weights
from kdjax.training.log import Reporter
from kdjax.training.loop import Job, Preempted, Teaching, fit
from kdjax.training.parallel import Devices, set_up_compilation_cache
from kdjax.training.preemption import Preemption
from kdjax.training.processes import connect, from_first, meet
from kdjax.training.run_directory import RunDirectory, locked, write_json
from kdjax.training.state import adapter_shapes
from kdjax.types import Variables


def distill(experiment: Experiment, workdir: Path, command: str) -> dict[str, Any]:
    """Run every stage that is not finished; the content of `summary.json`.

    Raises ValueError for what the user can mend, and `Preempted` when told to stop. Of several
    processes all train and evaluate; the first also exports, reports, and gets the summary.
    """
    with _workshop(experiment, workdir) as shop:
        teacher = shop.teacher()
        shop.probe(teacher)
        if experiment.baseline:
            shop.baseline(teacher)
            shop.compare(teacher)
        student = teacher
        for role in distilled(experiment):
            student = shop.student(student, role)
        tests = {role: shop.test(role, teacher) for role in roles(experiment)}
        if not shop.job.writes:
            meet("finished")
            return {}
        tests = shop.timed(tests, teacher)
        card = shop.export(student, tests["student"]["best"])
        summary = shop.summary(tests, card, command)
        shop.report(student, teacher)
        meet("finished")
        return summary


def train(experiment: Experiment, workdir: Path) -> dict[str, Any]:
    """The teacher alone; its run directory serves as `teacher.run` of any number of jobs."""
    with _workshop(experiment, workdir) as shop:
        teacher = shop.teacher()
        tests = {"teacher": shop.test("teacher", teacher)}
        models = shop.timed(tests, teacher) if shop.job.writes else {}
        meet("finished")
        return {"models": models} if models else {}


@contextmanager
def _workshop(experiment: Experiment, workdir: Path) -> Iterator["Workshop"]:
    """Everything a job works with; whatever can be refused is refused here."""
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
        shop = Workshop(experiment, workdir, dataset, job)
        shop.check()
        yield shop


@dataclass
class Workshop:
    """The stages of one job."""

    experiment: Experiment
    workdir: Path
    dataset: DataSet
    job: Job
    warnings: list[str] = field(default_factory=list)
    """About the teacher, for the log of the student."""

    def check(self) -> None:
        """Refuse what would fail later: batches, views, and directories of other experiments."""
        experiment = self.experiment
        teacher = self._named_teacher()
        if teacher is None:
            self._check_batch("teacher", experiment.teacher.fit)
            self._check_directory(teacher_run(experiment))
        model = teacher.model if teacher else experiment.teacher.model
        shape = self.dataset.info.shape
        check_views(experiment.data, shape)
        for run, teaching in chain(experiment, model, shape):
            self._check_batch(field_of(run.role), run.fit)
            terms = for_examples(run.losses, self.dataset.info.sizes["train"])
            adapter_shapes(terms, run.model, teaching, shape)
            cache.check(run, teaching, self.dataset.info)
            self._check_directory(run)
        self._check_directory(baseline_run(experiment, model, shape))
        if self.job.writes:
            write_json(self.workdir / "experiment.json", to_dict(experiment))

    def teacher(self) -> Loaded:
        """Train the teacher, or take the one that was named."""
        named = self._named_teacher()
        if named is not None:
            return named
        self._fit(teacher_run(self.experiment))
        return load(self.workdir / "teacher", self.experiment.teacher.checkpoint)

    def baseline(self, teacher: Loaded) -> None:
        """What the student would be worth without its teacher."""
        self._fit(baseline_run(self.experiment, teacher.model, self.dataset.info.shape))

    def probe(self, teacher: Loaded) -> None:
        """Look at the teacher before anything learns from it; ValueError if it is no use."""
        if not self._finished("student"):
            self._warn(self._prober.doubts(teacher))

    def compare(self, teacher: Loaded) -> None:
        """Say so if the student alone is as good as the teacher."""
        if not self._finished("student"):
            probe, alone = self._prober, load(self.workdir / "baseline")
            accuracies = probe.accuracy(teacher), probe.accuracy(alone)
            self._warn(outdone(*accuracies, len(probe.images)))

    def student(self, teacher: Loaded, role: str = "student") -> Loaded:
        """Distil, into the student or into an assistant."""
        shape = self.dataset.info.shape
        reference = self._reference(teacher, role)
        run = student_run(self.experiment, teacher.model, shape, reference, role)

        def start(fresh: Variables) -> Variables:
            source = self.dataset.open("train")
            count = run.inherit.recalibrate if run.inherit else 0
            return first_weights(
                teacher.model,
                teacher.variables,
                run.model,
                jax.device_get(fresh),
                run.inherit,
                shape,
                partial(first_batches, source, run.fit.batch_size, run.seed, count),
            )

        self._fit(run, teacher, start, self.warnings if role == "student" else ())
        return load(self.workdir / role)

    def test(self, role: str, teacher: Loaded) -> dict[str, Any]:
        """Evaluate the last and the best checkpoint on the test split: once, at the end."""
        path = self.workdir / role / "test.json"
        if from_first(path.is_file()):
            return read_json(path)
        self._pause()
        self.job.reporter.say(f"{role:<9} is tested")
        is_teacher = role == "teacher"
        directory = teacher.directory if is_teacher else self.workdir / role
        against = None if is_teacher else Teaching(teacher.model, teacher.variables)
        networks = {which: load(directory, which) for which in ("latest", "best")}
        evaluate = self._evaluate(networks["best"].run, "test", against)
        result = {
            which: {**provenance(network, "test"), **evaluate(network.variables)}
            for which, network in networks.items()
        }
        result |= _facts(networks["best"], self.dataset.info.shape)
        if self.job.writes:
            write_json(path, result)
        return result

    def timed(self, tests: dict[str, Any], teacher: Loaded) -> dict[str, Any]:
        """The tests with the latency of each network, measured side by side."""
        path = self.workdir / "latency.json"
        if not path.is_file() or read_json(path).keys() != tests.keys():
            others = {role: load(self.workdir / role) for role in tests if role != "teacher"}
            write_json(path, latency_ms({"teacher": teacher, **others}))
        measured = read_json(path)
        return {role: {**test, "latency_ms": measured[role]} for role, test in tests.items()}

    def export(self, student: Loaded, metrics: dict[str, Any]) -> dict[str, Any]:
        """The best student as files that stand alone."""
        directory = self.workdir / "export"
        if (directory / "card.json").is_file():
            card = read_json(directory / "card.json")
            if card["digest"] == student.digest:
                return card
        self._pause()
        self.job.reporter.say(f"student   is exported to {directory}")
        return export(student, directory, verification_images(student), metrics)

    def summary(self, tests: dict[str, Any], card: dict[str, Any], command: str) -> dict[str, Any]:
        """Everything that came out, in one file."""
        finished = {role: RunDirectory(self.workdir / role).result() for role in tests}
        seconds = {role: result["seconds"] for role, result in finished.items() if result}
        devices = self.job.devices.all
        libraries = ("jax", "flax", "optax", "orbax-checkpoint")
        summary = {
            "name": self.experiment.name,
            "kdjax": __version__,
            "command": command,
            "versions": {"python": python_version(), **{n: version(n) for n in libraries}},
            "hardware": f"{len(devices)} x {devices[0].device_kind}",
            "processes": jax.process_count(),
            "seconds": {**seconds, "total": round(sum(seconds.values()), 2)},
            "data": to_dict(self.dataset.info),
            "models": tests,
            "export": {
                "directory": "export",
                "bytes": card["bytes"],
                "max_difference": card["max_difference"],
            },
        }
        if self.experiment.published is not None:
            summary["published"] = to_dict(self.experiment.published)
        write_json(self.workdir / "summary.json", summary)
        return summary

    def report(self, student: Loaded, teacher: Loaded) -> None:
        """`report.html`."""
        analysis = self.workdir / "analysis.json"
        if not analysis.is_file():
            write_json(analysis, analyse(student, teacher, self.dataset.open("test")))
        (self.workdir / "report.html").write_text(build([read_job(self.workdir)]))

    def _named_teacher(self) -> Loaded | None:
        spec = self.experiment.teacher
        if spec.run is None:
            return None
        return as_teacher(spec.run, spec.checkpoint, self.dataset.info)

    def _check_batch(self, where: str, how: Fit) -> None:
        field, examples = f"{where}.fit.batch_size", self.dataset.info.sizes["train"]
        self.job.devices.check_batch(field, how.batch_size, how.accumulate)
        if how.batch_size > examples:
            raise ValueError(
                f"{field}: {how.batch_size} is more than the {examples} training examples."
            )

    def _check_directory(self, run: Run) -> None:
        """The teacher's weights are not known yet; `fit` compares them when they are."""
        RunDirectory(self.workdir / run.role).check(run, self.dataset.info, compare_teacher=False)

    def _reference(self, teacher: Loaded, role: str) -> TeacherReference:
        there, home = teacher.directory.absolute(), (self.workdir / role).absolute()
        inside = there.is_relative_to(self.workdir.absolute())
        run = os.path.relpath(there, home) if inside else str(there)
        return TeacherReference(run=run, step=teacher.step, digest=teacher.digest)

    def _evaluate(
        self, run: Run, split: str, teacher: Teaching | None
    ) -> Callable[[Variables], dict[str, Any]]:
        batch_size = self.experiment.runtime.eval_batch_size
        source = self.dataset.open(split)
        return make_evaluate(run.model, source, self.job.devices, batch_size, teacher)

    def _fit(
        self,
        run: Run,
        teacher: Loaded | None = None,
        start: Callable[[Variables], Variables] = lambda fresh: fresh,
        warnings: Sequence[str] = (),
    ) -> None:
        directory = RunDirectory(self.workdir / run.role)
        directory.check(run, self.dataset.info)
        if self._finished(run.role):
            self.job.reporter.say(f"{run.role:<9} is finished already ({directory.path})")
            return
        self._pause()
        teaching = Teaching(teacher.model, teacher.variables) if teacher else None
        evaluate = self._evaluate(run, "validation", teaching)

        def validation(variables: Variables) -> dict[str, float]:
            metrics = evaluate(variables)
            return {name: value for name, value in metrics.items() if isinstance(value, float)}

        fit(
            run,
            directory,
            self.dataset.info,
            self.dataset.open("train"),
            self.job,
            validate=validation,
            teacher=teaching,
            kept=cache.kept_teacher(run, teacher, self.dataset.info) if teacher else None,
            start=start,
            warnings=warnings,
        )

    def _finished(self, role: str) -> bool:
        return from_first(RunDirectory(self.workdir / role).result() is not None)

    @cached_property
    def _prober(self) -> Probe:
        source = self.dataset.open("validation")
        return Probe(source, self.job.devices, self.experiment.runtime.eval_batch_size)

    def _warn(self, texts: Sequence[str]) -> None:
        for text in texts:
            self.job.reporter.say(f"teacher   warning: {text}")
        self.warnings += texts

    def _pause(self) -> None:
        if self.job.stop():
            raise Preempted("stopped between two stages")


def _facts(network: Loaded, shape: Shape) -> dict[str, Any]:
    """What a network costs."""
    parameters = parameter_count(network.model, shape)
    return {
        "directory": network.directory.name,
        "type": type(network.model).__name__,
        "parameters": parameters,
        "bytes": 4 * parameters,
        "flops": flops(network.model, shape),
    }
