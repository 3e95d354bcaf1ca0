"""DIST: correlations with the teacher, along the classes and along the examples."""

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdjax.losses import DIST, Ramp
from tests.losses.contract import Spec, contract
from tests.losses.formulas import log_softmax
from tests.losses.support import (
    batch_of,
    example,
    law,
    logits,
    says,
    value,
    values_of,
)


def pearson(a, b):
    a, b = a - a.mean(), b - b.mean()
    return np.dot(a, b) / (np.sqrt(np.dot(a, a)) * np.sqrt(np.dot(b, b)) + 1e-8)


def formula(loss, student, teacher, labels, own):
    tau = loss.temperature
    s, t = (np.exp(log_softmax(out["logits"] / tau)) for out in (student, teacher))
    inter = np.mean([1 - pearson(s[i], t[i]) for i in range(s.shape[0])])
    intra = np.mean([1 - pearson(s[:, c], t[:, c]) for c in range(s.shape[1])])
    return tau**2 * (loss.beta * inter + loss.gamma * intra)


TestDIST = contract(
    Spec(
        DIST,
        formula,
        cases={
            "default": DIST(),
            "inter_alone": DIST(gamma=0.0, temperature=1.0),
            "intra_alone": DIST(beta=0.0, temperature=1.0),
        },
        other_values={"beta": 3.0, "gamma": 1.0, "temperature": 2.0},
    )
)


@law
@given(logits)
def test_dist_is_zero_where_the_student_is_the_teacher(z):
    """But for what hardly varies, which the guard makes a stranger to itself."""
    values = values_of(DIST(), says(z), says(z))
    p = np.exp(log_softmax(z.astype(np.float64) / 4))
    strangers = [1 - np.mean([pearson(v, v) for v in rows]) for rows in (p, p.T)]
    np.testing.assert_allclose(values, 32 * sum(strangers), rtol=1e-3, atol=1e-5)


@law
@given(logits, logits)
def test_dist_lies_between_zero_and_twice_the_weights(z_s, z_t):
    assert 0 <= values_of(DIST(temperature=1.0), says(z_s), says(z_t)) <= 8 + 1e-5


@law
@given(logits, logits, st.permutations(range(3)), st.permutations(range(5)))
def test_dist_sees_neither_the_order_of_the_batch_nor_that_of_the_classes(z_s, z_t, rows, columns):
    values = values_of(DIST(), says(z_s), says(z_t))
    turned = values_of(DIST(), says(z_s[rows][:, columns]), says(z_t[rows][:, columns]))
    np.testing.assert_allclose(turned, values, rtol=1e-3, atol=1e-3)


def test_dist_does_not_see_how_sure_the_teacher_is():
    """Probabilities halfway to uniform correlate fully, but for the guard."""
    z = np.random.default_rng(0).normal(size=(3, 5)).astype(np.float32)
    p = np.exp(log_softmax(z.astype(np.float64)))
    doubt = np.log(p / 2 + 0.1).astype(np.float32)
    for loss in (DIST(temperature=1.0), DIST(temperature=1.0, gamma=0.0)):
        np.testing.assert_allclose(values_of(loss, says(z), says(doubt)), 0, atol=1e-4)


def test_a_student_that_is_nearly_the_teacher_is_measured():
    """One less the correlation would be rounding alone."""
    student, teacher, batch = example()
    student = student._replace(logits=teacher.logits + 1e-3 * student.logits)
    ours = value(DIST(), student, teacher, batch)
    arrays = ({"logits": np.asarray(out.logits, np.float64)} for out in (student, teacher))
    np.testing.assert_allclose(ours, formula(DIST(), *arrays, None, {}), rtol=1e-3)


def test_each_example_has_the_temperature_of_its_epoch():
    student, teacher, _ = example()
    ramp = Ramp(start=1.0, stop=4.0, begin=1.0, epochs=0.0)
    epoch = np.array([0, 1, 0, 1])
    batch = batch_of(np.zeros(4, int))._replace(epoch=jnp.asarray(epoch))
    tau = np.where(epoch < 1, 1.0, 4.0)[:, None]
    s, t = (
        np.exp(log_softmax(np.asarray(out.logits, np.float64) / tau)) for out in (student, teacher)
    )
    inter = np.mean([tau[i, 0] ** 2 * (1 - pearson(s[i], t[i])) for i in range(4)])
    intra = np.mean([1 - pearson(s[:, c], t[:, c]) for c in range(5)]) * np.mean(tau**2)
    ours = value(DIST(beta=1.0, gamma=3.0, temperature=ramp), student, teacher, batch)
    np.testing.assert_allclose(ours, inter + 3 * intra, rtol=1e-5)


@pytest.mark.parametrize("field", ["beta", "gamma"])
def test_a_negative_weight_is_refused(field):
    with pytest.raises(ValueError, match=rf"^{field}: -1.0 cannot work; it must be >= 0"):
        DIST(**{field: -1.0}).check()
