"""From an experiment to the training runs it consists of. Pure: no files, no devices."""

import functools
from dataclasses import replace

from kdjax.experiment.fields import (
    ASSISTANTS,
    Cache,
    Experiment,
    Fit,
    Run,
    Student,
    TeacherReference,
)
from kdjax.experiment.objective import Term
from kdjax.experiment.phases import begins, spans
from kdjax.losses import CrossEntropy
from kdjax.models import Ensemble, Model, ReusedClassifier
from kdjax.models.reused_classifier import reusing
from kdjax.models.summary import Shape, flops, parameter_count
from kdjax.students.derive import Derive, derive, derive_within


def student_model(student: Student, teacher: Model, shape: Shape, where: str = "student") -> Model:
    """The student as named, or cut from the teacher, for images of `shape`; errors say `where`."""
    model = student.model or _derived(student.derive, teacher, shape, where)
    if not student.reuse_classifier or isinstance(model, ReusedClassifier):
        return model
    switch = f"{where}.reuse_classifier"
    if isinstance(model, Ensemble) or isinstance(teacher, Ensemble):
        raise ValueError(
            f"{switch}: an Ensemble has several classifiers; give it a single network as teacher "
            "and as student."
        )
    return reusing(model, teacher, shape, switch)


@functools.cache  # a budget takes many traces, and every run of a job asks
def _derived(how: Derive, teacher: Model, shape: Shape, where: str) -> Model:
    for name, count in (("params", parameter_count), ("flops", flops)):
        share = getattr(how, name)
        if share is not None:
            cost = functools.partial(count, shape=shape)
            try:
                return derive_within(teacher, cost, share, depth=how.depth)
            except ValueError as error:
                raise ValueError(f"{where}.derive.{name}: {error}") from error
    return derive(teacher, width=how.width, depth=how.depth)


def distilled(experiment: Experiment) -> dict[str, Student]:
    """What is distilled, by role: each from the one before it, and the first from the teacher."""
    assistants = dict(zip(ASSISTANTS, experiment.assistants, strict=False))
    return {**assistants, "student": experiment.student}


def roles(experiment: Experiment) -> list[str]:
    """The networks of a job, in the order in which they are shown."""
    alone = ["baseline"] if experiment.baseline else []
    return ["teacher", *ASSISTANTS[: len(experiment.assistants)], *alone, "student"]


def field_of(role: str) -> str:
    """Where an experiment says what the run of this role is: `assistants.0`."""
    return f"assistants.{ASSISTANTS.index(role)}" if role in ASSISTANTS else role


def chain(experiment: Experiment, teacher: Model, shape: Shape) -> list[tuple[Run, Model]]:
    """Every distillation in order, with the network that teaches in it, no weights being known."""
    links = []
    for role in distilled(experiment):
        run = student_run(experiment, teacher, shape, None, role)
        links.append((run, teacher))
        teacher = run.model
    return links


def teacher_run(experiment: Experiment) -> Run:
    """The teacher: a student with no teacher."""
    teacher = experiment.teacher
    return Run(
        role="teacher",
        seed=experiment.seed,
        data=experiment.data,
        metrics=experiment.metrics,
        model=teacher.model,
        losses=teacher.losses,
        fit=teacher.fit,
    )


def baseline_run(experiment: Experiment, teacher: Model, shape: Shape) -> Run:
    """The student's network and schedule, from fresh weights, on the labels alone.

    Its classifier is its own, and it has the phases in which labels count.
    """
    student, _ = chain(experiment, teacher, shape)[-1]
    model = student.model
    return Run(
        role="baseline",
        seed=experiment.seed,
        data=experiment.data,
        metrics=experiment.metrics,
        model=model.network() if isinstance(model, ReusedClassifier) else model,
        losses=(Term(CrossEntropy()),),
        fit=_alone(experiment.student, isinstance(model, ReusedClassifier)),
    )


def _alone(student: Student, reuses: bool) -> Fit:
    """The phases of a student's fit in which labels count, for its network alone.

    All of them, if the others have no rates of their own: the fit's would not fit what is left.
    """
    placed = spans(student.fit.phases, student.fit.epochs) if student.fit.phases else []
    counts = [
        any(not term.loss.needs_teacher for term in span.phase.losses or student.losses)
        for span in placed
    ]
    rated = all(span.phase.schedule for span, kept in zip(placed, counts, strict=True) if kept)
    found = []
    for (phase, begin, end), kept in zip(placed, counts, strict=True):
        own = phase.alone(_of_network if reuses else str)
        if own is not None and (kept or not rated):
            found.append(replace(own, epochs=end - begin))
    whole = len(found) == len(placed)
    if not found or not (whole or all(phase.schedule for phase in found)):
        return replace(student.fit, phases=())
    epochs = student.fit.epochs if whole else sum(phase.epochs or 0.0 for phase in found)
    phases = (*found[:-1], replace(found[-1], epochs=None))
    return replace(student.fit, epochs=epochs, phases=phases)


def _of_network(path: str) -> str | None:
    """A path of a network that answers with its teacher's classifier, in the network itself."""
    if begins("student/network", path):
        return f"student{path.removeprefix('student/network')}"
    return path if path == "student" else None


def student_run(
    experiment: Experiment,
    teacher: Model,
    shape: Shape,
    reference: TeacherReference | None,
    role: str = "student",
) -> Run:
    """A distillation from `teacher`; `reference` is None while that is not trained yet."""
    student = distilled(experiment)[role]
    first = role == next(iter(distilled(experiment)))  # the others learn from assistants
    inherits = student.model is None and student.derive.inherit
    return Run(
        role=role,
        seed=experiment.seed,
        data=experiment.data,
        metrics=experiment.metrics,
        model=student_model(student, teacher, shape, field_of(role)),
        losses=student.losses,
        fit=student.fit,
        teacher=reference,
        cache=experiment.teacher.cache if first else Cache(),
        inherit=student.derive if inherits else None,
    )
