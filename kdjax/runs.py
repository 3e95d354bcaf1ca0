"""From an experiment to the training runs it consists of. Pure: no files, no devices."""

from kdjax.experiment import Experiment, Run, Student, TeacherReference
from kdjax.losses import CrossEntropy, Term
from kdjax.models import Model
from kdjax.students.derive import derive


def student_model(student: Student, teacher: Model) -> Model:
    """The student as named, or cut from the teacher."""
    if student.model is not None:
        return student.model
    return derive(teacher, width=student.derive.width, depth=student.derive.depth)


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


def baseline_run(experiment: Experiment, teacher: Model) -> Run:
    """The student's network and schedule, from fresh weights, on the labels alone."""
    return Run(
        role="baseline",
        seed=experiment.seed,
        data=experiment.data,
        model=student_model(experiment.student, teacher),
        losses=(Term(CrossEntropy()),),
        fit=experiment.student.fit,
    )


def student_run(experiment: Experiment, teacher: Model, reference: TeacherReference | None) -> Run:
    """The distillation; `reference` is None while the teacher is not trained yet."""
    student = experiment.student
    inherits = student.model is None and student.derive.inherit
    return Run(
        role="student",
        seed=experiment.seed,
        data=experiment.data,
        model=student_model(student, teacher),
        losses=student.losses,
        fit=student.fit,
        teacher=reference,
        inherit=student.derive if inherits else None,
    )
