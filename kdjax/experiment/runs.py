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
from kdjax.experiment.phases import spans
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
        model=model.network() if isinstance(model, ReusedClassifier) else model,
        losses=(Term(CrossEntropy()),),
        fit=_alone(experiment.student),
    )


def _alone(student: Student) -> Fit:
    """The phases of a student's fit in which labels count; all of them, if they count in none."""
    fit = student.fit
    if not fit.phases:
        return fit
    placed = [
        span._replace(phase=span.phase.without_adapters())
        for span in spans(fit.phases, fit.epochs)
        if any(not term.loss.needs_teacher for term in span.phase.losses or student.losses)
    ]
    placed = [span for span in placed if span.phase.train]
    if not placed:
        return replace(fit, phases=())
    *before, last = placed
    phases = [replace(phase, epochs=end - begin) for phase, begin, end in before]
    epochs = sum(end - begin for _, begin, end in placed)
    return replace(fit, epochs=epochs, phases=(*phases, replace(last.phase, epochs=None)))


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
        model=student_model(student, teacher, shape, field_of(role)),
        losses=student.losses,
        fit=student.fit,
        teacher=reference,
        cache=experiment.teacher.cache if first else Cache(),
        inherit=student.derive if inherits else None,
    )
