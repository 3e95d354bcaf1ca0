"""Distillation from a made-up teacher."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdjax.experiment.objective import Term
from kdjax.losses import CrossEntropy, TfKD
from tests.losses.contract import Spec, contract
from tests.losses.formulas import log_softmax
from tests.losses.support import CLASSES, law, logits, says, value_and_slope, values_of


def formula(loss, student, teacher, labels, own):
    values = []
    for z, y in zip(student["logits"], labels, strict=True):
        virtual = np.full(CLASSES, (1 - loss.correct) / (CLASSES - 1))
        virtual[y] = loss.correct
        p = np.exp(virtual / loss.temperature)
        p /= p.sum()
        values.append(np.sum(p * (np.log(p) - log_softmax(z))))
    return np.array(values)


TestTfKD = contract(
    Spec(
        TfKD,
        formula,
        cases={"default": TfKD(), "sharp": TfKD(correct=0.9, temperature=0.1)},
        other_values={"correct": 0.5, "temperature": 0.5},
        training=Term(TfKD(temperature=0.1), 1.0),
    )
)


@law
@given(logits, st.sampled_from([0.1, 1.0, 20.0]))
def test_tf_kd_is_not_negative_and_zero_at_the_virtual_teacher(z, temperature):
    loss = TfKD(temperature=temperature)
    assert values_of(loss, says(z), None).min() >= -1e-5
    virtual = np.full((3, CLASSES), 0.01 / (CLASSES - 1), np.float32)
    virtual[[0, 1, 2], [0, 2, 4]] = 0.99
    values, slope = value_and_slope(loss, says(virtual / temperature), None)
    np.testing.assert_allclose(values, 0, atol=1e-5)
    np.testing.assert_allclose(slope.logits, 0, atol=1e-6)


@law
@given(logits, st.sampled_from([0.1, 1.0]))
def test_the_slope_is_that_of_smoothed_labels(z, temperature):
    """Yuan et al., section 3: label smoothing is distillation from a virtual teacher."""
    share = 1 / (1 + (CLASSES - 1) * np.exp((0.01 / (CLASSES - 1) - 0.99) / temperature))
    smoothing = CLASSES * (1 - share) / (CLASSES - 1)
    _, ours = value_and_slope(TfKD(temperature=temperature), says(z), None)
    _, theirs = value_and_slope(CrossEntropy(label_smoothing=smoothing), says(z), None)
    np.testing.assert_allclose(ours.logits, theirs.logits, atol=1e-5)


@pytest.mark.parametrize("correct", [0.0, 1.0])
def test_the_label_has_a_probability(correct):
    with pytest.raises(ValueError, match=r"^correct: .* cannot work; it must be in \(0, 1\)"):
        TfKD(correct=correct).check()


def test_temperatures_are_positive():
    with pytest.raises(ValueError, match=r"^temperature: 0.0 cannot work; it must be positive"):
        TfKD(temperature=0.0).check()
