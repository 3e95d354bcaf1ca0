"""A derived student before its training: cut out of its teacher, statistics measured anew."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from kdjax.experiment import Derive
from kdjax.models import Model
from kdjax.models.summary import Shape
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
    how: Derive,
    shape: Shape,
    batches: Batches,
) -> dict[str, Any]:
    """The student's variables as `how` says, from its teacher's and from `fresh` ones."""
    gradients = None
    if how.importance == "taylor":
        gradients = loss_gradients(teacher, variables, batches())
    cut = inherit(teacher, variables, student, fresh, shape, how.importance, gradients)
    return recalibrate(student, cut, (images for images, _ in batches()))
