"""Refined logit distillation: a teacher's confidence and ranking, but for its mistakes."""

import numpy as np
import pytest
from hypothesis import given

from kdjax.losses import DKD, RLD
from tests.losses.contract import Spec, contract
from tests.losses.formulas import log_softmax
from tests.losses.support import LABELS, law, logits, says, value_and_slope, values_of


def formula(loss, student, teacher, labels, own):
    def divergence(p, q):
        return np.sum(p * np.log(p / q))

    values = []
    for z_s, z_t, y in zip(student["logits"], teacher["logits"], labels, strict=True):
        t_a, t = loss.confidence_temperature, loss.temperature
        q, p = (np.exp(log_softmax(z / t_a)) for z in (z_s, z_t))
        scd = divergence(np.array([p.max(), 1 - p.max()]), np.array([q[y], 1 - q[y]]))
        below = [c for c in range(len(z_t)) if z_t[c] < z_t[y]]
        mcd = 0.0
        if below:
            q, p = (np.exp(log_softmax(z[below] / t)) for z in (z_s, z_t))
            mcd = divergence(p, q)
        values.append(loss.alpha * t_a**2 * scd + loss.beta * t**2 * mcd)
    return np.array(values)


TestRLD = contract(
    Spec(
        RLD,
        formula,
        cases={
            "default": RLD(),
            "confidence_alone": RLD(alpha=2.0, beta=0.0, confidence_temperature=1.0),
            "correlation_alone": RLD(alpha=0.0, beta=1.0, temperature=2.0),
        },
        other_values={
            "alpha": 3.0,
            "beta": 2.0,
            "temperature": 2.0,
            "confidence_temperature": 1.0,
        },
    )
)


@law
@given(logits, logits)
def test_of_a_teacher_that_is_right_it_is_dkd(z_s, z_t):
    z_t = z_t.copy()
    for i, label in enumerate(np.asarray(LABELS.label)):
        z_t[i, label] = z_t[i].max() + 1
    found = values_of(RLD(), says(z_s), says(z_t))
    expected = values_of(DKD(), says(z_s), says(z_t))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-3)


def test_a_teacher_that_ranks_the_label_last_says_no_more_than_how_sure_it_is():
    z_t = np.float32([[0, 1, 2, 3, 4]] * 3)
    z_t[1], z_t[2] = [1, 2, 0, 3, 4], [4, 1, 2, 3, 0]
    z_s = np.random.default_rng(0).normal(size=(3, 5)).astype(np.float32)
    values, slope = value_and_slope(RLD(alpha=0.0), says(z_s), says(z_t))
    np.testing.assert_array_equal(values, 0)
    np.testing.assert_array_equal(slope.logits, 0)


@pytest.mark.parametrize("field", ["temperature", "confidence_temperature"])
def test_temperatures_are_positive(field):
    with pytest.raises(ValueError, match=rf"^{field}: 0.0 cannot work; it must be positive"):
        RLD(**{field: 0.0}).check()
