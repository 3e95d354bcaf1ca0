"""The rules an experiment must obey, checked before any device is touched."""

import dataclasses
import math
from typing import get_args

import jax
import jax.numpy as jnp

from kdjax.checks import require, within
from kdjax.data.augment import Augmentation, mixing_among
from kdjax.data.drawing import SAMPLINGS
from kdjax.experiment.fields import (
    ASSISTANTS,
    Cache,
    Data,
    Experiment,
    Runtime,
    Student,
    Teacher,
)
from kdjax.experiment.fit_rules import (
    check_fit,
    check_losses,
    check_prepared,
    check_projector,
    objectives,
)
from kdjax.experiment.importing import written_by_others
from kdjax.models.check import check_model
from kdjax.models.summary import Shape


def validate(experiment: Experiment) -> None:
    """Raise ValueError for the first value that cannot work, naming field, value and remedy."""
    _check_finite("", experiment)
    require("seed", experiment.seed, 0 <= experiment.seed < 2**32, "in [0, 2**32)")
    data = experiment.data
    _check_data(data)
    check_cache(experiment.teacher.cache, data)
    checkpoint = experiment.teacher.checkpoint
    known = checkpoint in ("best", "latest") or checkpoint.isdecimal()
    require("teacher.checkpoint", checkpoint, known, "best, latest or a step")
    if experiment.teacher.run is None:
        check_model("teacher.model", experiment.teacher.model)
        check_fit("teacher.fit", experiment.teacher.fit)
        learns = experiment.teacher.fit.ema_teacher
        for where, losses in objectives("teacher", experiment.teacher):
            check_losses(where, losses, data, has_teacher=learns)
            check_projector(where, losses, reuses=False)
    most = len(ASSISTANTS)
    few = len(experiment.assistants) <= most
    require("assistants", len(experiment.assistants), few, f"at most {most} of them")
    for where, assistant in _numbered(experiment.assistants):
        _check_student(where, assistant, data)
    _check_student("student", experiment.student, data)
    for i, metric in enumerate(experiment.metrics):
        with within(f"metrics.{i}"):
            metric.check()
    for role in ("teacher", "baseline", "student") if experiment.published else ():
        top1 = getattr(experiment.published, role)
        fits = top1 is None or 1 < top1 <= 100
        require(f"published.{role}", top1, fits, "in per cent, above 1 and at most 100")
    _check_runtime(experiment.runtime)


def check_cache(cache: Cache, data: Data) -> None:
    """Raise ValueError if what a teacher says of these data cannot be kept."""
    if cache.top_k is not None:
        require("teacher.cache.top_k", cache.top_k, cache.top_k >= 1, "at least 1, or None")
    mixing = mixing_among(data.augment)
    if cache.directory is not None and mixing and data.teacher_augment is None:
        raise ValueError(
            "teacher.cache.directory: what the teacher says of a mixture depends on the batch and "
            f"cannot be kept; leave out {mixing}, or set data.teacher_augment."
        )
    seen = data.augment if data.teacher_augment is None else data.teacher_augment
    endless = data.sampling != "instance" and data.cycle is None and bool(seen)
    if cache.directory is not None and endless:
        raise ValueError(
            f"teacher.cache.directory: with data.sampling={data.sampling!r} each draw is a view of "
            "its own, and no answer is used twice; set data.cycle."
        )


def check_unlabelled(experiment: Experiment) -> None:
    """Raise ValueError for what needs labels of the training images, which have none."""
    without = "the training images have no labels"
    if experiment.baseline:
        raise ValueError(
            f"baseline: it learns from labels alone, and {without}; set baseline to False."
        )
    sampling = experiment.data.sampling
    if sampling != "instance":
        raise ValueError(
            f"data.sampling: {sampling!r} draws by label, and {without}; set it to instance."
        )
    students = [*_numbered(experiment.assistants), ("student", experiment.student)]
    learners: list[tuple[str, Teacher | Student]] = [*students]
    if experiment.teacher.run is None:
        learners.append(("teacher", experiment.teacher))
    for who, learner in learners:
        terms = [
            f"{where}.{i} ({type(term.loss).__name__})"
            for where, losses in objectives(who, learner)
            for i, term in enumerate(losses)
            if term.loss.needs_label
        ]
        if terms:
            remedy = "name a trained one by teacher.run" if who == "teacher" else "remove them"
            raise ValueError(f"{', '.join(terms)}: read labels, and {without}; {remedy}.")
    for where, student in students:
        if student.model is None and student.derive.inherit:
            labels = student.derive.importance != "taylor"
            remedy = f"l1 or bn_scale: taylor reads labels, and {without}"
            require(f"{where}.derive.importance", "taylor", labels, remedy)


def _numbered(assistants: tuple[Student, ...]) -> list[tuple[str, Student]]:
    return [(f"assistants.{i}", assistant) for i, assistant in enumerate(assistants)]


def _check_student(where: str, student: Student, data: Data) -> None:
    if student.model is not None:
        check_model(f"{where}.model", student.model)
    else:
        with within(f"{where}.derive"):
            student.derive.check()
    check_fit(f"{where}.fit", student.fit)
    taught = not student.fit.ema_teacher
    require(f"{where}.fit.ema_teacher", True, taught, "False: a student has a teacher already")
    for objective, losses in objectives(where, student):
        check_losses(objective, losses, data, has_teacher=True)
        check_projector(objective, losses, reuses=student.reuse_classifier)
    check_prepared(where, student)


def _check_finite(where: str, value: object) -> None:
    """The comparisons below let infinities pass, and fields without a rule let NaN pass."""
    if isinstance(value, float):
        require(where, value, math.isfinite(value), "a finite number")
    elif isinstance(value, tuple):
        for i, item in enumerate(value):
            _check_finite(f"{where}.{i}", item)
    elif dataclasses.is_dataclass(value):
        for f in dataclasses.fields(value):
            path = f"{where}.{f.name}" if where else f.name
            _check_finite(path, getattr(value, f.name))


def _check_data(data: Data) -> None:
    kind, _, rest = data.name.partition(":")
    known = data.name == "digits" or (kind in ("tfds", "folder", "npz") and rest != "")
    require("data.name", data.name, known, "digits, tfds:NAME, folder:DIR or npz:FILE")
    if data.image_size is not None:
        positive = min(data.image_size) > 0
        require("data.image_size", data.image_size, positive, "two positive numbers, or None")
    known = data.sampling in SAMPLINGS
    require("data.sampling", data.sampling, known, f"one of {', '.join(SAMPLINGS)}")
    require("data.views", data.views, data.views >= 1, "at least 1")
    if data.cycle is not None:
        require("data.cycle", data.cycle, data.cycle >= 1, "at least 1, or None")
    _check_augment("data.augment", data.augment)
    if data.teacher_augment is not None:
        _check_augment("data.teacher_augment", data.teacher_augment)
        mixing = mixing_among(data.teacher_augment)
        if mixing:
            raise ValueError(
                "data.teacher_augment: the teacher would see mixtures that the student does not; "
                f"leave out {mixing}, or set data.teacher_augment to None to mix the same for both."
            )


def _check_augment(list_name: str, transforms: tuple[Augmentation, ...]) -> None:
    for i, transform in enumerate(transforms):
        where = f"{list_name}.{i}"
        with within(where):
            transform.check()
        if transform.mixes and i + 1 < len(transforms):
            raise ValueError(
                f"{where}: {mixing_among((transform,))} comes last, and images are mixed once; "
                "move it to the end."
            )


def check_views(data: Data, shape: Shape) -> None:
    """Raise ValueError for the first view that images of this shape cannot be seen through."""
    for name in ("augment", "teacher_augment"):
        for i, transform in enumerate(getattr(data, name) or ()):
            with within(f"data.{name}.{i}"):
                transform.check_shape(shape)
            if type(transform) not in get_args(Augmentation):
                _check_view(f"data.{name}.{i}", transform, shape)


def _check_view(where: str, transform: Augmentation, shape: Shape) -> None:
    """A view of the user's own keeps what an image is; one that mixes is seen when it is run."""
    if transform.mixes:
        return
    image, key = jax.ShapeDtypeStruct(shape, jnp.uint8), jax.eval_shape(lambda: jax.random.key(0))
    with written_by_others(type(transform)):
        seen = jax.eval_shape(transform, key, image)
    if (seen.shape, seen.dtype) != (image.shape, image.dtype):
        raise ValueError(
            f"{where}: {type(transform).__name__} makes {seen.dtype}{list(seen.shape)} of "
            f"{image.dtype}{list(image.shape)}; a view has the shape and type of its image."
        )


def _check_runtime(runtime: Runtime) -> None:
    for name in ("eval_batch_size", "log_every", "keep_latest", "keep_best"):
        value = getattr(runtime, name)
        require(f"runtime.{name}", value, value >= 1, "at least 1")
    together = runtime.steps_per_dispatch
    if together is not None:
        require("runtime.steps_per_dispatch", together, together >= 1, "at least 1, or None")
    if runtime.devices is not None:
        require("runtime.devices", runtime.devices, runtime.devices >= 1, "at least 1, or None")
