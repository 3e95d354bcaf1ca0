"""Probabilistic knowledge transfer: examples have the neighbours that the teacher gives them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdjax.experiment.objective import Term
from kdjax.losses import PKT
from tests.losses.contract import Spec, contract
from tests.losses.formulas import unit
from tests.losses.support import (
    batch_of,
    embeddings,
    finite_differences,
    law,
    outputs,
    says,
    value_and_slope,
    values_of,
)


def formula(loss, student, teacher, labels, own):
    paper = loss.variant == "paper"

    def neighbours(e):
        kernel = (unit(e) @ unit(e).T + 1) / 2
        if paper:
            np.fill_diagonal(kernel, 0)
        return kernel / kernel.sum(axis=1, keepdims=True)

    s, t = neighbours(student["embedding"]), neighbours(teacher["embedding"])
    terms = t * np.log((t + 1e-7) / (s + 1e-7))
    return terms.sum() if paper else terms.mean()


TestPKT = contract(
    Spec(
        PKT,
        formula,
        cases={"code": PKT(), "paper": PKT(variant="paper")},
        other_values={"variant": "paper"},
        reads=("embedding",),
        training=Term(PKT(), 30000.0),
    )
)

VARIANTS = [PKT(), PKT(variant="paper")]


@law
@given(embeddings, st.sampled_from([0.25, 1.0, 8.0]))
def test_pkt_is_zero_where_the_student_is_a_multiple_of_the_teacher(e, scale):
    for loss in VARIANTS:
        values, slope = value_and_slope(
            loss, says(embedding=e), says(embedding=e * np.float32(scale))
        )
        np.testing.assert_allclose(values, 0, atol=1e-7)
        np.testing.assert_allclose(e * slope.embedding, 0, atol=1e-5)


@law
@given(embeddings, embeddings)
def test_pkt_is_not_negative(e_s, e_t):
    """But for the guard under the logarithm."""
    for loss in VARIANTS:
        assert values_of(loss, says(embedding=e_s), says(embedding=e_t)) >= -2e-6


@law
@given(embeddings, embeddings, st.permutations(range(3)), st.permutations(range(4)))
def test_pkt_sees_neither_the_order_of_the_batch_nor_a_turn(e_s, e_t, order, turn):
    """Of embeddings as a ReLU leaves them; opposite ones have a probability of rounding alone."""
    e_s, e_t = np.abs(e_s), np.abs(e_t)
    for loss in VARIANTS:
        values = values_of(loss, says(embedding=e_s), says(embedding=e_t))
        turned = e_s[order][:, turn] * np.float32([1, -1, 1, 1])
        moved = values_of(loss, says(embedding=turned), says(embedding=e_t[order]))
        np.testing.assert_allclose(moved, values, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("loss", VARIANTS, ids=lambda loss: loss.variant)
def test_pkt_of_a_probability_that_is_zero(loss):
    opposite = np.array([[1, 0, 0], [-1, 0, 0], [0, 1, 0]], np.float32)
    other = np.array([[3, 0, 4], [0, 1, 0], [1, 1, 1]], np.float32)
    for ours, theirs in [(opposite, other), (other, opposite)]:
        expected = formula(loss, {"embedding": ours}, {"embedding": theirs}, None, {})
        value = values_of(loss, says(embedding=ours), says(embedding=theirs))
        np.testing.assert_allclose(value, expected, rtol=1e-5)


def test_pkt_has_a_slope_where_one_probability_of_several_is_the_teachers():
    x, y = np.eye(2, dtype=np.float32)
    ours, theirs = np.stack([x, y, x]), np.stack([x, x, y])
    teacher = {"embedding": theirs.astype(np.float64)}
    expected = finite_differences(
        lambda student: formula(PKT(), student, teacher, None, {}),
        {"embedding": ours.astype(np.float64)},
    )
    _, slope = value_and_slope(PKT(), says(embedding=ours), says(embedding=theirs))
    np.testing.assert_allclose(slope.embedding, expected["embedding"], atol=1e-6)


@pytest.mark.parametrize("loss", VARIANTS, ids=lambda loss: loss.variant)
def test_pkt_of_opposite_embeddings_is_finite(loss):
    """To whom student, or teacher, gives the probability zero, or less by rounding."""
    rng = np.random.default_rng(0)
    for e in rng.normal(size=(20, 512)).astype(np.float32):
        poles = np.stack([e, -e, -e])
        for ours, theirs in [(poles, np.eye(3)), (np.eye(3), poles), (poles, -poles)]:
            values, slope = value_and_slope(loss, says(embedding=ours), says(embedding=theirs))
            assert np.isfinite(values)
            assert np.isfinite(slope.embedding).all()


def test_pkt_measures_a_student_that_is_nearly_the_teacher():
    """The sum of terms of both signs would be rounding alone."""
    teacher, other = outputs({}, 16, 0, 64), outputs({}, 16, 1, 64)
    student = teacher._replace(embedding=teacher.embedding + 1e-3 * other.embedding)
    ours = PKT().apply({}, student, teacher, batch_of(np.zeros(64, int)))
    arrays = ({"embedding": np.asarray(out.embedding, np.float64)} for out in (student, teacher))
    np.testing.assert_allclose(ours, formula(PKT(), *arrays, None, {}), rtol=1e-3)
