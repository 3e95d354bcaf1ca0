"""Focal loss, in the form for one label."""

import numpy as np
import pytest

from kdjax.losses import CrossEntropy, Focal
from tests.losses.contract import Spec, contract
from tests.losses.formulas import class_weights, log_softmax
from tests.losses.support import CLASSES, LABELS, says, value_and_slope

WEIGHTS = (1.0, 2.0, 0.0, 3.0, 0.5)


def formula(loss, student, teacher, labels, own):
    log_p = log_softmax(student["logits"])
    nats = -class_weights(loss) * (1 - np.exp(log_p)) ** loss.gamma * log_p
    hard = nats[range(len(labels)), labels]
    return (1 - loss.label_smoothing) * hard + loss.label_smoothing * nats.mean(axis=-1)


TestFocal = contract(
    Spec(
        Focal,
        formula,
        cases={
            "default": Focal(),
            "smoothed": Focal(label_smoothing=0.3, class_weights=WEIGHTS),
            "balanced": Focal(class_balance=0.9),
            "steep": Focal(gamma=0.5),
        },
        other_values={
            "label_smoothing": 0.1,
            "class_weights": WEIGHTS,
            "class_balance": 0.9,
            "gamma": 1.0,
        },
    )
)


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
def test_without_focus_it_is_cross_entropy(smoothing):
    logits = np.random.default_rng(0).normal(0, 3, (3, CLASSES)).astype(np.float32)
    found, expected = (
        value_and_slope(loss, says(logits), None)
        for loss in (Focal(gamma=0.0, label_smoothing=smoothing), CrossEntropy(smoothing))
    )
    np.testing.assert_allclose(found[0], expected[0], rtol=1e-6)
    np.testing.assert_allclose(found[1].logits, expected[1].logits, atol=1e-6)


def test_mixed_images_have_a_share_of_two_labels():
    logits = np.random.default_rng(0).normal(size=(3, CLASSES)).astype(np.float32)
    share, other = np.array([0.25, 1.0, 0.0], np.float32), np.array([3, 1, 2])
    one, another = (
        Focal().apply({}, says(logits), None, LABELS._replace(label=label))
        for label in (LABELS.label, other)
    )
    mixed = Focal().apply({}, says(logits), None, LABELS._replace(other_label=other, share=share))
    np.testing.assert_allclose(mixed, share * one + (1 - share) * another, rtol=1e-6)


def test_a_sure_answer_has_no_slope_whatever_gamma():
    sure = np.where(np.eye(CLASSES)[:3], 1e4, -1e4).astype(np.float32)
    values, slope = value_and_slope(Focal(gamma=0.5), says(sure), None)
    assert np.isfinite(values).all()
    np.testing.assert_allclose(slope.logits[0], 0, atol=1e-6)
    assert np.isfinite(slope.logits).all()


def test_a_sure_answer_counts_no_more_than_another():
    with pytest.raises(ValueError, match=r"^gamma: -1.0 cannot work; it must be >= 0"):
        Focal(gamma=-1.0).check()
    with pytest.raises(ValueError, match=r"^label_smoothing: 1.0 cannot work"):
        Focal(label_smoothing=1.0).check()
