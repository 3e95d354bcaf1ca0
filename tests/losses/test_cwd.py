"""Channel-wise distillation: a distribution over the pixels for each channel."""

import numpy as np
import pytest
from hypothesis import given

from kdjax.losses import CWD
from tests.losses.contract import Spec, contract
from tests.losses.formulas import conv, log_softmax, pool_to_common
from tests.losses.support import law, maps, says, value_and_slope, values_of


def formula(loss, student, teacher, labels, own):
    ours = loss.stage or "stage2"
    f_s, f_t = pool_to_common(student[ours], teacher[loss.teacher_stage or ours])
    if f_s.shape[-1] != f_t.shape[-1]:
        f_s = conv(f_s, own["conv/kernel"], own["conv/bias"])
    values = np.zeros(len(f_s))
    for i, c in np.ndindex(len(f_s), f_t.shape[-1]):
        log_q, log_p = (log_softmax(f[i, ..., c].ravel() / loss.temperature) for f in (f_s, f_t))
        values[i] += np.sum(np.exp(log_p) * (log_p - log_q)) / f_t.shape[-1]
    return loss.temperature**2 * values


TestCWD = contract(
    Spec(
        CWD,
        formula,
        cases={
            "default": CWD(),
            "same_channels": CWD(stage="flat", temperature=1.0),
            "other_sizes": CWD(stage="odd", teacher_stage="smaller"),
        },
        other_values={"stage": "stage1", "teacher_stage": "half", "temperature": 1.0},
        flat=("conv/bias",),
    )
)


@law
@given(maps)
def test_cwd_is_zero_where_the_student_is_the_teacher(f):
    """And where a channel is the teacher's, shifted."""
    shifted = f + np.array([0, 8, -8], np.float32)
    values, slope = value_and_slope(CWD(stage="flat"), says(stage=f), says(stage=shifted))
    np.testing.assert_allclose(values, 0, atol=1e-4)
    np.testing.assert_allclose(slope.features["flat"], 0, atol=1e-4)


@law
@given(maps, maps)
def test_cwd_is_not_negative(f_s, f_t):
    assert values_of(CWD(stage="flat"), says(stage=f_s), says(stage=f_t)).min() >= -1e-4


def test_a_temperature_of_zero_is_refused():
    with pytest.raises(ValueError, match=r"^temperature: 0.0 cannot work; it must be positive"):
        CWD(temperature=0.0).check()
