"""From an experiment to the training runs it consists of. Pure: no files, no devices."""

import functools

from kdjax.experiment import Derive, Experiment, Run, Student, TeacherReference
from kdjax.losses import CrossEntropy
from kdjax.models import Ensemble, Model, ReusedClassifier
from kdjax.models.reused_classifier import reusing
from kdjax.models.summary import Shape, flops, parameter_count
from kdjax.objective import Term
from kdjax.students.derive import derive, derive_within


def student_model(student: Student, teacher: Model, shape: Shape) -> Model:
    """The student as named, or cut from the teacher, for images of `shape`."""
    model = student.model or _derived(student.derive, teacher, shape)
    if not student.reuse_classifier or isinstance(model, ReusedClassifier):
        return model
    if isinstance(model, Ensemble) or isinstance(teacher, Ensemble):
        raise ValueError(
            "student.reuse_classifier: an Ensemble has several classifiers; give it a single "
            "network as teacher and as student."
        )
    return reusing(model, teacher, shape)


@functools.cache  # a budget takes many traces, and every run of a job asks
def _derived(how: Derive, teacher: Model, shape: Shape) -> Model:
    for name, count in (("params", parameter_count), ("flops", flops)):
        share = getattr(how, name)
        if share is not None:
            cost = functools.partial(count, shape=shape)
            try:
                return derive_within(teacher, cost, share, depth=how.depth)
            except ValueError as error:
                raise ValueError(f"student.derive.{name}: {error}") from error
    return derive(teacher, width=how.width, depth=how.depth)


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

    Its classifier is its own.
    """
    model = student_model(experiment.student, teacher, shape)
    return Run(
        role="baseline",
        seed=experiment.seed,
        data=experiment.data,
        model=model.network() if isinstance(model, ReusedClassifier) else model,
        losses=(Term(CrossEntropy()),),
        fit=experiment.student.fit,
    )


def student_run(
    experiment: Experiment, teacher: Model, shape: Shape, reference: TeacherReference | None
) -> Run:
    """The distillation; `reference` is None while the teacher is not trained yet."""
    student = experiment.student
    inherits = student.model is None and student.derive.inherit
    return Run(
        role="student",
        seed=experiment.seed,
        data=experiment.data,
        model=student_model(student, teacher, shape),
        losses=student.losses,
        fit=student.fit,
        teacher=reference,
        inherit=student.derive if inherits else None,
    )
