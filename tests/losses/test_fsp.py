"""The flow of solution procedure: products of a stage with the next."""

import re

import jax
import numpy as np
import pytest
from hypothesis import given

from kdjax.experiment.objective import Term
from kdjax.losses import FSP
from kdjax.models import SmallCNN
from tests.losses.contract import Spec, contract
from tests.losses.formulas import windows
from tests.losses.support import example, law, maps, says, value_and_slope
from tests.training import TEACHER

STAGES = {"stages": ("stage1", "odd"), "teacher_stages": ("odd", "double")}


def matrix(f, g, pool):
    """Of one example."""
    height, width = np.minimum(f.shape[:2], g.shape[:2])
    total = 0.0
    for i in range(height):
        for j in range(width):
            cells = [
                pool(x[windows(x.shape[0], height)[i], windows(x.shape[1], width)[j]], axis=(0, 1))
                for x in (f, g)
            ]
            total = total + np.outer(*cells)
    return total / (height * width)


def formula(loss, student, teacher, labels, own):
    values = np.zeros(len(labels))
    steps = range(len(loss.stages) - 1)
    code = loss.variant == "code"
    for b, i in np.ndindex(len(values), len(steps)):
        g_s, g_t = (
            matrix(maps[names[i]][b], maps[names[i + 1]][b], np.mean if code else np.max)
            for maps, names in ((student, loss.stages), (teacher, loss.teacher_stages))
        )
        values[b] += np.mean((g_s - g_t) ** 2) if code else np.linalg.norm(g_s - g_t) ** 2
    return values


TestFSP = contract(
    Spec(
        FSP,
        formula,
        given=STAGES,
        cases={
            "code": FSP(**STAGES),
            "paper": FSP(**STAGES, variant="paper"),
            "three": FSP(
                stages=("stage1", "stage2", "odd"), teacher_stages=("odd", "flat", "double")
            ),
        },
        other_values={
            "stages": ("stage2", "odd"),
            "teacher_stages": ("flat", "double"),
            "variant": "paper",
        },
        training=Term(FSP()),
        student=SmallCNN(widths=TEACHER.widths, hidden=16, mean=TEACHER.mean, std=TEACHER.std),
    )
)


@law
@given(maps)
def test_fsp_is_zero_where_the_student_is_the_teacher(f):
    for variant in ("code", "paper"):
        loss = FSP(stages=("flat", "flat"), variant=variant)
        values, slope = value_and_slope(loss, says(stage=f), says(stage=f))
        assert not values.any()
        assert not slope.features["flat"].any()


def test_other_widths_are_refused():
    message = (
        "FSP: the student's stage1 of 4x6x3 has not as many channels as the teacher's stage1 of "
        "4x6x4; choose stages of equal widths, or another loss."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        FSP().init(jax.random.key(0), *example())


def test_one_stage_alone_is_refused():
    with pytest.raises(ValueError, match=r"^FSP: 1 stage has no next one; name at least two"):
        FSP(stages=("flat",)).init(jax.random.key(0), *example())
