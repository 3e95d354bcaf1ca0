"""Similarity preserving: which examples look alike."""

import numpy as np
from hypothesis import given

from kdjax.losses import SP
from kdjax.objective import Term
from tests.losses.contract import Spec, contract
from tests.losses.formulas import unit
from tests.losses.support import law, maps, says, value_and_slope, values_of


def formula(loss, student, teacher, labels, own):
    last = "stage2"
    f_s = student[loss.stage or last]
    f_t = teacher[loss.teacher_stage or loss.stage or last]
    g_s, g_t = (unit(np.einsum("ahwc,bhwc->ab", f, f)) for f in (f_s, f_t))
    return np.sum((g_s - g_t) ** 2) / len(f_s) ** 2


TestSP = contract(
    Spec(
        SP,
        formula,
        cases={"default": SP(), "other_sizes": SP(stage="odd", teacher_stage="half")},
        other_values={"stage": "stage1", "teacher_stage": "double"},
        training=Term(SP(), 3000.0),
    )
)


@law
@given(maps)
def test_a_student_as_the_teacher_up_to_scale_has_nothing_to_learn(f):
    loss = SP(stage="flat")
    value, slope = value_and_slope(loss, says(stage=4 * f), says(stage=f))
    np.testing.assert_allclose(value, 0, atol=1e-10)
    np.testing.assert_allclose(f * slope.features["flat"], 0, atol=1e-5)


@law
@given(maps, maps)
def test_the_order_of_pixels_and_channels_does_not_matter(f_s, f_t):
    loss = SP(stage="flat")
    turned = says(stage=f_s[:, ::-1, :, ::-1])
    np.testing.assert_allclose(
        values_of(loss, turned, says(stage=f_t)),
        values_of(loss, says(stage=f_s), says(stage=f_t)),
        atol=1e-6,
    )
