"""FitNets: a regressor from the student's map to the teacher's."""

import re

import jax
import numpy as np
import pytest
from hypothesis import given

from kdjax.losses import FitNet
from tests.losses.contract import Spec, contract
from tests.losses.formulas import batch_norm, conv
from tests.losses.support import (
    LABELS,
    TEACHER_MAPS,
    example,
    law,
    maps,
    own_variables,
    says,
    value,
)


def formula(loss, student, teacher, labels, own):
    f_s, f_t = student[loss.stage], teacher[loss.teacher_stage or loss.stage]
    kernel, bias = own["conv/kernel"], own["conv/bias"]
    ours, theirs = f_s.shape[1:3], f_t.shape[1:3]
    if ours == (2 * theirs[0], 2 * theirs[1]):
        x = conv(f_s, kernel, bias, 2, (1, 1))
    elif (2 * ours[0], 2 * ours[1]) == theirs:
        spread = np.zeros((len(f_s), 2 * ours[0] - 1, 2 * ours[1] - 1, f_s.shape[-1]))
        spread[:, ::2, ::2] = f_s
        x = conv(spread, kernel, bias, 1, (2, 2))
    else:
        x = conv(f_s, kernel, bias)
    x = batch_norm(x, own["bn/scale"], own["bn/bias"])
    return np.mean((np.maximum(x, 0) - f_t) ** 2, axis=(1, 2, 3))


TestFitNet = contract(
    Spec(
        FitNet,
        formula,
        cases={
            "same": FitNet(),
            "half": FitNet(stage="stage1", teacher_stage="half"),
            "double": FitNet(stage="stage1", teacher_stage="double"),
            "a_little_larger": FitNet(stage="odd", teacher_stage="smaller"),
        },
        other_values={"stage": "flat", "teacher_stage": "flat", "sync_batch_norm": False},
        flat=("conv/bias",),
        every_day=True,
    )
)


@pytest.mark.parametrize(
    ("case", "window"),
    [("same", (1, 1)), ("half", (3, 3)), ("double", (4, 4)), ("a_little_larger", (3, 4))],
)
def test_the_window_is_repdistillers(case, window):
    params = own_variables(TestFitNet.spec.cases[case])["params"]
    assert params["conv"]["kernel"].shape[:2] == window


@law
@given(maps, maps)
def test_fitnet_is_not_negative(f_s, f_t):
    loss = FitNet(stage="flat")
    assert value(loss, says(stage=f_s), says(stage=f_t), LABELS).min() >= 0


def test_fitnet_refuses_maps_it_cannot_bring_together():
    loss = FitNet(stage="stage2", teacher_stage="double")
    with pytest.raises(ValueError, match="student's stage2 of 4x4 to the teacher's 8x12; choose"):
        loss.init(jax.random.key(0), *example())


def test_an_unknown_stage_is_named_beside_those_there_are():
    loss = FitNet(stage="stage1", teacher_stage="stage9")
    message = f"FitNet: the teacher has no stage 'stage9'; it has {', '.join(TEACHER_MAPS)}."
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        loss.init(jax.random.key(0), *example())
