"""Attention transfer: look where the teacher looks."""

import re

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdjax.experiment.objective import Term
from kdjax.losses import AttentionTransfer
from tests.losses.contract import Spec, contract
from tests.losses.formulas import pool_to_common, unit
from tests.losses.support import (
    STUDENT_MAPS,
    TEACHER_MAPS,
    example,
    law,
    maps,
    says,
    value_and_slope,
    values_of,
)


def formula(loss, student, teacher, labels, own):
    total = 0.0
    stages = loss.stages or ("stage1", "stage2")
    for ours, theirs in zip(stages, loss.teacher_stages or stages, strict=True):
        f_s, f_t = pool_to_common(student[ours], teacher[theirs])
        q_s, q_t = (
            unit(np.mean(np.abs(f) ** loss.p, axis=-1).reshape(len(f), -1)) for f in (f_s, f_t)
        )
        gap = q_s - q_t
        code = loss.variant == "code"
        total = total + (np.mean(gap**2, axis=-1) if code else np.linalg.norm(gap, axis=-1))
    return total


TestAttentionTransfer = contract(
    Spec(
        AttentionTransfer,
        formula,
        cases={
            "code": AttentionTransfer(),
            "paper": AttentionTransfer(variant="paper"),
            "cubed": AttentionTransfer(p=3.0),
            "absolute_values": AttentionTransfer(p=1.0, variant="paper"),
            "from_larger": AttentionTransfer(
                stages=("stage1", "odd"), teacher_stages=("half", "smaller")
            ),
            "to_larger": AttentionTransfer(
                stages=("stage1",), teacher_stages=("double",), variant="paper"
            ),
        },
        other_values={
            "stages": ("stage1",),
            "teacher_stages": ("half", "stage2"),
            "p": 1.0,
            "variant": "paper",
        },
        training=Term(AttentionTransfer(), 1000.0),
    )
)

VARIANTS = [
    AttentionTransfer(stages=("flat",), variant=variant, p=p)
    for variant in ("code", "paper")
    for p in (1.0, 2.0, 4.0)
]


@law
@given(maps, st.sampled_from(VARIANTS), st.sampled_from([1.0, 0.25, 8.0]))
def test_attention_transfer_is_zero_where_the_student_is_the_teacher(f, loss, scale):
    """And where it is a multiple of it: the length of the map is divided out."""
    values, slope = value_and_slope(loss, says(stage=f), says(stage=f * np.float32(scale)))
    np.testing.assert_allclose(values, 0, atol=1e-6)
    if loss.variant == "code":  # the norm of the paper's has a kink there
        np.testing.assert_allclose(f * slope.features["flat"], 0, atol=1e-6)


@pytest.mark.parametrize("loss", VARIANTS, ids=lambda loss: f"{loss.variant}-{loss.p}")
@pytest.mark.parametrize("scale", [1e-20, 1e-4, 1e4, 1e15])
def test_attention_transfer_does_not_see_the_scale_of_a_map(loss, scale):
    """Not even where the power of an activation is no float32 any more."""
    rng = np.random.default_rng(0)
    f_s, f_t = rng.normal(size=(2, 3, 2, 4, 3)).astype(np.float32)
    expected = values_of(loss, says(stage=f_s), says(stage=f_t))
    factors = np.array([scale, 1, 1 / scale], np.float32).reshape(3, 1, 1, 1)
    scaled = values_of(loss, says(stage=f_s * factors), says(stage=f_t))
    np.testing.assert_allclose(scaled, expected, rtol=1e-4)


@law
@given(maps, maps)
def test_attention_transfer_is_not_negative(f_s, f_t):
    student, teacher = says(stage=f_s), says(stage=f_t)
    assert min(values_of(loss, student, teacher).min() for loss in VARIANTS) >= 0


@pytest.mark.parametrize(
    ("who", "stages", "teacher_stages"),
    [("student", ("stage9",), ("stage1",)), ("teacher", ("stage1",), ("stage9",))],
)
def test_an_unknown_stage_is_named_beside_those_there_are(who, stages, teacher_stages):
    loss = AttentionTransfer(stages=stages, teacher_stages=teacher_stages)
    have = ", ".join(STUDENT_MAPS if who == "student" else TEACHER_MAPS)
    message = f"AttentionTransfer: the {who} has no stage 'stage9'; it has {have}."
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        loss.init(jax.random.key(0), *example())


def test_a_power_below_one_is_refused():
    with pytest.raises(ValueError, match=r"^p: 0.5 cannot work; it must be at least 1"):
        AttentionTransfer(p=0.5).check()
