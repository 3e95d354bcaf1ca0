"""Similarity preserving: what the teacher finds alike, the student finds alike."""

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdjax.experiment.objective import Term
from kdjax.losses import SP
from tests.losses.contract import Spec, contract
from tests.losses.support import example, law, maps, says, value_and_slope, values_of


def formula(loss, student, teacher, labels, own):
    def rows(features):
        gram = np.array([[np.sum(a * b) for b in features] for a in features])
        return np.array([row / np.sqrt(np.sum(row**2)) for row in gram])

    ours = loss.stage or "stage2"
    gap = rows(student[ours]) - rows(teacher[loss.teacher_stage or ours])
    return np.sum(gap**2) / len(gap) ** 2


TestSP = contract(
    Spec(
        SP,
        formula,
        cases={
            "default": SP(),
            "other_sizes": SP(stage="stage1", teacher_stage="double"),
            "the_teacher's_alone": SP(teacher_stage="half"),
        },
        other_values={"stage": "stage1", "teacher_stage": "half"},
        training=Term(SP(), 3000.0),
    )
)

LOSS = SP(stage="flat")


@law
@given(maps, st.sampled_from([1.0, -0.25, 8.0]))
def test_sp_is_zero_where_the_student_is_a_multiple_of_the_teacher(f, scale):
    values, slope = value_and_slope(LOSS, says(stage=f), says(stage=f * np.float32(scale)))
    np.testing.assert_allclose(values, 0, atol=1e-10)
    np.testing.assert_allclose(f * slope.features["flat"], 0, atol=1e-6)


@law
@given(maps, maps, st.permutations(range(3)))
def test_sp_does_not_see_the_order_of_the_batch(f_s, f_t, order):
    values = values_of(LOSS, says(stage=f_s), says(stage=f_t))
    turned = values_of(LOSS, says(stage=f_s[order]), says(stage=f_t[order]))
    np.testing.assert_allclose(turned, values, rtol=1e-4, atol=1e-7)


@law
@given(maps, maps)
def test_sp_does_not_see_how_pixels_are_arranged(f_s, f_t):
    values = values_of(LOSS, says(stage=f_s), says(stage=f_t))
    turned = values_of(LOSS, says(stage=f_s[:, ::-1].swapaxes(1, 2)), says(stage=f_t))
    np.testing.assert_allclose(turned, values, rtol=1e-4, atol=1e-7)


@law
@given(maps, maps)
def test_sp_lies_between_zero_and_four_over_the_batch(f_s, f_t):
    """Rows of length one, which at worst point against each other."""
    values = values_of(LOSS, says(stage=f_s), says(stage=f_t))
    assert 0 <= values <= 4 / 3 + 1e-6


def test_sp_names_an_unknown_stage():
    with pytest.raises(ValueError, match="SP: the teacher has no stage 'stage9'; it has"):
        SP(teacher_stage="stage9").init(jax.random.key(0), *example())
