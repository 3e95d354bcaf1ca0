"""Alpha-beta divergences, and the ones they turn into."""

import numpy as np
import pytest
from hypothesis import given

from kdjax.losses import ABKD, SoftTarget
from tests.losses.contract import Spec, contract
from tests.losses.formulas import log_softmax
from tests.losses.support import law, logits, says, values_of


def formula(loss, student, teacher, labels, own):
    a, b = loss.alpha, loss.beta
    p, q = (np.exp(log_softmax(x["logits"] / loss.temperature)) for x in (teacher, student))
    if b == 0:
        terms = (p**a * np.log(p**a / q**a) - p**a + q**a) / a**2
    elif a == 0:
        terms = (q**b * np.log(q**b / p**b) - q**b + p**b) / b**2
    else:
        rest = p**a * q**b - a / (a + b) * p ** (a + b) - b / (a + b) * q ** (a + b)
        terms = -rest / (a * b)
    return terms.sum(axis=-1)


TestABKD = contract(
    Spec(
        ABKD,
        formula,
        cases={
            "default": ABKD(),
            "squares": ABKD(alpha=1.0, beta=1.0, temperature=1.0),
            "forward": ABKD(alpha=1.0, beta=0.0),
            "half_forward": ABKD(alpha=0.5, beta=0.0, temperature=2.0),
            "reverse": ABKD(alpha=0.0, beta=1.0),
        },
        other_values={"alpha": 0.5, "beta": 0.6, "temperature": 2.0},
    )
)


@law
@given(logits, logits)
def test_the_corners_are_the_two_ways_of_kullback_and_leibler(z_s, z_t):
    forward, reverse = (
        values_of(ABKD(alpha=a, beta=1 - a), says(z_s), says(z_t)) for a in (1.0, 0.0)
    )
    soft = SoftTarget(temperature=4.0)
    for found, pair in ((forward, (z_s, z_t)), (reverse, (z_t, z_s))):
        expected = values_of(soft, *map(says, pair)) / 16
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


@law
@given(logits, logits)
def test_small_powers_come_near_the_limit(z_s, z_t):
    z_s, z_t = z_s / 10, z_t / 10  # where single precision has digits left
    near, limit = (
        values_of(ABKD(alpha=0.8, beta=beta), says(z_s), says(z_t)) for beta in (0.01, 0.0)
    )
    np.testing.assert_allclose(near, limit, rtol=0.1, atol=1e-4)


@law
@given(logits, logits)
def test_it_is_not_negative_and_zero_where_both_agree(z_s, z_t):
    assert values_of(ABKD(), says(z_s), says(z_t)).min() >= -1e-5
    np.testing.assert_allclose(values_of(ABKD(), says(z_t), says(z_t)), 0, atol=1e-5)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"alpha": -0.1}, r"^alpha: -0.1 cannot work; it must be 0, or at least 0.01"),
        ({"beta": 1e-6}, r"^beta: 1e-06 cannot work; it must be 0, or at least 0.01"),
        ({"alpha": 0.0, "beta": 0.0}, r"^beta: 0.0 cannot work; .* positive where alpha is 0"),
    ],
)
def test_powers_that_cannot_work_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        ABKD(**fields).check()
