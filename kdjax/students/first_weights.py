"""A student before its training: what it takes over from its teacher, statistics measured anew."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from kdjax.models import Model, ReusedClassifier
from kdjax.models.reused_classifier import classifier_of
from kdjax.models.summary import Shape
from kdjax.students.derive import Derive
from kdjax.students.gradients import loss_gradients
from kdjax.students.inherit import inherit
from kdjax.students.recalibrate import recalibrate
from kdjax.types import Variables

Batches = Callable[[], Iterator[tuple[np.ndarray, np.ndarray]]]
"""The training images and labels that are looked at, the same at each call."""


def first_weights(
    teacher: Model,
    variables: Variables,
    student: Model,
    fresh: Variables,
    how: Derive | None,
    shape: Shape,
    batches: Batches,
) -> dict[str, Any]:
    """The student's variables as `how` says, from its teacher's and from `fresh` ones.

    `how` is None for a student that inherits nothing, but perhaps its teacher's classifier.
    """
    first = dict(fresh)
    if isinstance(student, ReusedClassifier):
        first["frozen"] = {"classifier": dict(classifier_of(variables, "ReusedClassifier"))}
    if how is None:
        return first
    gradients = None
    if how.importance == "taylor":
        gradients = loss_gradients(teacher, variables, batches())

    def cut(student: Model, first: Variables) -> dict[str, Any]:
        return inherit(teacher, variables, student, first, shape, how.importance, gradients)

    if isinstance(student, ReusedClassifier) and not isinstance(teacher, ReusedClassifier):
        part = {name: tree["network"] for name, tree in first.items() if "network" in tree}
        for name, tree in cut(student.network(), part).items():
            first[name] = {**first[name], "network": tree}
    else:
        first = cut(student, first)
    return recalibrate(student, first, (images for images, _ in batches()))
