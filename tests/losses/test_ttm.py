"""Transformed teacher matching: the teacher alone is softened."""

import numpy as np
from hypothesis import given

from kdjax.losses import TTM, SoftTarget
from tests.losses.contract import Spec, contract
from tests.losses.formulas import log_softmax
from tests.losses.support import law, logits, says, values_of


def formula(loss, student, teacher, labels, own):
    power = np.exp(log_softmax(teacher["logits"])) ** (1 / loss.temperature)
    u = power.sum(axis=-1, keepdims=True)
    p, log_q = power / u, log_softmax(student["logits"])
    values = np.sum(p * (np.log(p) - log_q), axis=-1)
    return values * u[:, 0] if loss.weighted else values


TestTTM = contract(
    Spec(
        TTM,
        formula,
        cases={
            "default": TTM(),
            "weighted": TTM(weighted=True),
            "weighted_at_two": TTM(temperature=2.0, weighted=True),
        },
        other_values={"temperature": 3.0, "weighted": True},
    )
)


@law
@given(logits, logits)
def test_at_temperature_one_both_forms_are_soft_targets(z_s, z_t):
    expected = values_of(SoftTarget(temperature=1.0), says(z_s), says(z_t))
    for loss in (TTM(temperature=1.0), TTM(temperature=1.0, weighted=True)):
        found = values_of(loss, says(z_s), says(z_t))
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


@law
@given(logits)
def test_a_teacher_of_equal_logits_counts_most(z_s):
    sure, even = (np.float32([[50, 0, 0, 0, 0]] * 3), np.zeros((3, 5), np.float32))
    for z_t, weight in ((sure, 1.0), (even, 5**0.5)):
        plain, weighted = (
            values_of(TTM(temperature=2.0, weighted=on), says(z_s), says(z_t))
            for on in (False, True)
        )
        np.testing.assert_allclose(weighted, weight * plain, rtol=1e-4, atol=1e-5)
