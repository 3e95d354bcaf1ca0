"""What each stage of a job does: a function from what it needs to what it leaves behind.

Knows nothing of the order, nor of which processes come by: `distill` does. A stage whose result is
on disk, made from the same, returns that.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib.metadata import version
from platform import python_version
from typing import Any

import jax

from kdjax import __version__
from kdjax.data.pipeline import first_batches
from kdjax.deploy.export import export
from kdjax.drafts import drafted
from kdjax.evaluation.analysis import analyse
from kdjax.evaluation.doubts import outdone
from kdjax.evaluation.evaluate import Evaluate
from kdjax.evaluation.latency import latency_ms
from kdjax.evaluation.load import Loaded, load
from kdjax.evaluation.of_run import provenance, verification_images
from kdjax.experiment import Run, TeacherReference
from kdjax.experiment.json import to_dict
from kdjax.experiment.runs import baseline_run, student_run, teacher_run
from kdjax.jobs import cache
from kdjax.jobs.opening import Work
from kdjax.jobs.products import (
    Product,
    fingerprint,
    fingerprint_of,
    is_finished,
    is_trained,
    kept,
    kept_by_all,
)
from kdjax.models.summary import Shape, flops, parameter_count
from kdjax.students.first_weights import first_weights
from kdjax.training.loop import Teaching, fit
from kdjax.training.run_directory import write_json
from kdjax.types import Variables

# --- Training, and a look at the teacher ---------------------------------------------------------


def teacher(work: Work) -> Loaded:
    """The one that was named, or a trained one."""
    if work.named is not None:
        return work.named
    spec = work.experiment.teacher
    return _trained(work, teacher_run(work.experiment), checkpoint=spec.checkpoint)


def doubts(work: Work, teacher: Loaded) -> list[str]:
    """What is wrong with the teacher; ValueError if it is no use. Of interest to a student only."""
    if is_finished(work.directory("student")):
        return []
    return _warned(work, work.probe.doubts(teacher))


def baseline(work: Work, teacher: Loaded) -> Loaded:
    """What the student would be worth without its teacher."""
    return _trained(work, baseline_run(work.experiment, teacher.model, work.dataset.info.shape))


def comparison(work: Work, teacher: Loaded, alone: Loaded) -> list[str]:
    """That the student alone is as good as the teacher, if so. Of interest to a student only."""
    if is_finished(work.directory("student")):
        return []
    accuracies = work.probe.accuracy(teacher), work.probe.accuracy(alone)
    return _warned(work, outdone(*accuracies, len(work.probe.images)))


def student(work: Work, teacher: Loaded, role: str, warnings: Sequence[str]) -> Loaded:
    """A student, or an assistant; the student's log gets the warnings about the first teacher."""
    shape = work.dataset.info.shape
    reference = _reference(work, teacher, role)
    run = student_run(work.experiment, teacher.model, shape, reference, role)

    def start(fresh: Variables) -> Variables:
        source = work.dataset.open("train")
        count = run.inherit.recalibrate if run.inherit else 0
        return first_weights(
            teacher.model,
            teacher.variables,
            run.model,
            jax.device_get(fresh),
            run.inherit,
            shape,
            partial(first_batches, source, run.fit.batch_size, run.seed, count, run.data.sampling),
        )

    return _trained(work, run, teacher, start, warnings if role == "student" else ())


# --- Measuring -----------------------------------------------------------------------------------


def test(work: Work, role: str, network: Loaded, teacher: Loaded) -> dict[str, Any]:
    """The last and the best checkpoint on the test split, beside the teacher: once, at the end.

    How many images are looked at together changes no more than the rounding of the result.
    """
    networks = {which: load(network.directory, which) for which in ("latest", "best")}
    made_from = {which: fingerprint_of(found) for which, found in networks.items()}
    made_from |= {"data": _tested_on(work), "kdjax": __version__}
    made_from["metrics"] = fingerprint(to_dict(work.experiment)["metrics"])
    against = None
    if role != "teacher":
        against = Teaching(teacher.model, teacher.variables)
        made_from["teacher"] = fingerprint_of(teacher)

    def make() -> dict[str, Any]:
        work.job.reporter.say(f"{role:<9} is tested")
        evaluate = _evaluate(work, networks["best"].run, "test", against)
        result = {
            which: {**provenance(found, "test"), **evaluate(found.variables)}
            for which, found in networks.items()
        }
        return result | _facts(networks["best"], work.dataset.info.shape)

    product = Product(work.path / role / "test.json", made_from)
    return kept_by_all(product, make, writes=work.job.writes)


def timed(
    work: Work, tests: Mapping[str, Mapping[str, Any]], networks: Mapping[str, Loaded]
) -> dict[str, Any]:
    """The tests with the latency of each network, measured side by side."""
    made_from = {role: fingerprint_of(network) for role, network in networks.items()}
    product = Product(work.path / "latency.json", {**made_from, "hardware": _hardware(work)})
    measured = kept(product, lambda: latency_ms(networks))
    return {role: {**test, "latency_ms": measured[role]} for role, test in tests.items()}


def analysis(work: Work, student: Loaded, teacher: Loaded) -> dict[str, Any]:
    """Where student and teacher differ."""
    made_from = {
        "student": fingerprint_of(student),
        "teacher": fingerprint_of(teacher),
        "data": _tested_on(work),
        "kdjax": __version__,
    }
    product = Product(work.path / "analysis.json", made_from)
    return kept(product, lambda: analyse(student, teacher, work.dataset.open("test")))


# --- Handing over --------------------------------------------------------------------------------


def exported(work: Work, student: Loaded, metrics: Mapping[str, Any]) -> dict[str, Any]:
    """The best student as files that stand alone; their card."""
    directory = work.path / "export"
    made_from = {
        "student": fingerprint_of(student),
        "metrics": fingerprint(metrics),
        "data": _tested_on(work),
        "jax": jax.__version__,
        "kdjax": __version__,
    }

    def make() -> dict[str, Any]:
        work.job.reporter.say(f"student   is exported to {directory}")
        return export(student, directory, verification_images(student), metrics)

    return kept(Product(directory / "card.json", made_from), make)


def summary(
    work: Work, models: Mapping[str, Any], card: Mapping[str, Any], command: str
) -> dict[str, Any]:
    """Everything that came out, in one file: put together anew each time, from what was kept."""
    trained = [role for role in models if role != "teacher" or work.named is None]
    finished = {role: work.directory(role).result() for role in trained}
    seconds = {role: result["seconds"] for role, result in finished.items() if result}
    libraries = ("jax", "flax", "optax", "orbax-checkpoint")
    summary = {
        "name": work.experiment.name,
        "kdjax": __version__,
        "command": command,
        "versions": {"python": python_version(), **{n: version(n) for n in libraries}},
        "hardware": _hardware(work),
        "processes": jax.process_count(),
        "seconds": {**seconds, "total": round(sum(seconds.values()), 2)},
        "data": to_dict(work.dataset.info),
        "models": models,
        "export": {
            "directory": "export",
            "bytes": card["bytes"],
            "max_difference": card["max_difference"],
        },
    }
    if work.experiment.published is not None:
        summary["published"] = to_dict(work.experiment.published)
    write_json(work.path / "summary.json", summary)
    return summary


def report(work: Work) -> dict[str, Any]:
    """`report.html`: anew each time, and nothing that a later stage would want."""
    from kdjax.report.page import build, read_job  # Matplotlib takes a while, and training waits

    page = build([read_job(work.path)])
    with drafted(work.path / "report.html") as draft:
        draft.write_text(page)
    return {}


# --- What several stages need --------------------------------------------------------------------


def _trained(
    work: Work,
    run: Run,
    teacher: Loaded | None = None,
    start: Callable[[Variables], Variables] = lambda fresh: fresh,
    warnings: Sequence[str] = (),
    checkpoint: str = "best",
) -> Loaded:
    """The network of a run, which is trained first unless it is finished."""
    directory, info = work.directory(run.role), work.dataset.info
    if is_trained(directory, run, info):
        if work.job.writes:
            directory.create(run, info)
        work.job.reporter.say(f"{run.role:<9} is finished already ({directory.path})")
        return load(directory.path, checkpoint)
    teaching = Teaching(teacher.model, teacher.variables) if teacher else None
    evaluate = _evaluate(work, run, "validation", teaching)

    def validation(variables: Variables) -> dict[str, Any]:
        metrics = evaluate(variables)
        return {name: value for name, value in metrics.items() if isinstance(value, float | dict)}

    fit(
        run,
        directory,
        info,
        work.dataset.open("train"),
        work.job,
        validate=validation,
        teacher=teaching,
        kept=cache.kept_teacher(run, teacher, info) if teacher else None,
        start=start,
        warnings=warnings,
        ahead=(evaluate.ahead,),
    )
    return load(directory.path, checkpoint)


def _reference(work: Work, teacher: Loaded, role: str) -> TeacherReference:
    there, home = teacher.directory.absolute(), (work.path / role).absolute()
    inside = there.is_relative_to(work.path.absolute())
    run = os.path.relpath(there, home) if inside else str(there)
    return TeacherReference(run=run, step=teacher.step, digest=teacher.digest)


def _evaluate(work: Work, run: Run, split: str, teacher: Teaching | None) -> Evaluate:
    batch_size = work.experiment.runtime.eval_batch_size
    source, metrics = work.dataset.open(split), work.experiment.metrics
    return Evaluate(run.model, source, work.job.devices, batch_size, teacher, metrics)


def _warned(work: Work, texts: list[str]) -> list[str]:
    for text in texts:
        work.job.reporter.say(f"teacher   warning: {text}")
    return texts


def _tested_on(work: Work) -> str:
    return fingerprint(to_dict(work.dataset.info), work.experiment.data.test)


def _hardware(work: Work) -> str:
    devices = work.job.devices.all
    return f"{len(devices)} x {devices[0].device_kind}"


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
