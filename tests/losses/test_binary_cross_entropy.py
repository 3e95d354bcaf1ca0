"""Binary cross-entropy of each class."""

import numpy as np
import pytest

from kdjax.experiment.objective import Term
from kdjax.losses import BinaryCrossEntropy
from tests.losses.contract import Spec, contract
from tests.losses.support import CLASSES, LABELS, says


def nats(z, target):
    return target * np.log1p(np.exp(-z)) + (1 - target) * np.log1p(np.exp(z))


def formula(loss, student, teacher, labels, own):
    target = np.full((len(labels), CLASSES), loss.label_smoothing / CLASSES)
    target[range(len(labels)), labels] += 1 - loss.label_smoothing
    if loss.target_threshold is not None:
        target = np.where(target > loss.target_threshold, 1.0, 0.0)
    total = nats(student["logits"], target).sum(axis=-1)
    return total if loss.sum_classes else total / CLASSES


TestBinaryCrossEntropy = contract(
    Spec(
        BinaryCrossEntropy,
        formula,
        cases={
            "default": BinaryCrossEntropy(),
            "hard": BinaryCrossEntropy(label_smoothing=0.0),
            "threshold": BinaryCrossEntropy(target_threshold=0.2, sum_classes=True),
        },
        other_values={"label_smoothing": 0.3, "target_threshold": 0.2, "sum_classes": True},
        training=Term(BinaryCrossEntropy(sum_classes=True)),
    )
)


def test_of_a_mixture_both_labels_are_there_above_the_threshold():
    z = np.random.default_rng(0).normal(size=(3, CLASSES)).astype(np.float32)
    batch = LABELS._replace(  # of the labels 0, 2 and 4
        other_label=np.array([3, 2, 1]), share=np.array([0.3, 0.3, 0.9], np.float32)
    )
    target = np.zeros((3, CLASSES))
    for row, there in enumerate([(0, 3), (2,), (4,)]):
        target[row, there] = 1
    loss = BinaryCrossEntropy(target_threshold=0.2)
    found = loss.apply({}, says(z), None, batch)
    np.testing.assert_allclose(found, nats(z.astype(np.float64), target).mean(axis=-1), rtol=1e-5)


def test_without_threshold_a_mixture_is_a_share_of_both():
    z = np.random.default_rng(0).normal(size=(3, CLASSES)).astype(np.float32)
    other, share = np.array([3, 2, 1]), np.array([0.3, 0.3, 0.9], np.float32)
    loss = BinaryCrossEntropy()
    one, another = (
        loss.apply({}, says(z), None, LABELS._replace(label=label))
        for label in (LABELS.label, other)
    )
    found = loss.apply({}, says(z), None, LABELS._replace(other_label=other, share=share))
    np.testing.assert_allclose(found, share * one + (1 - share) * another, rtol=1e-6)


@pytest.mark.parametrize("threshold", [-0.1, 1.0])
def test_a_threshold_can_be_exceeded(threshold):
    with pytest.raises(ValueError, match=r"^target_threshold: .* must be in \[0, 1\), or None"):
        BinaryCrossEntropy(target_threshold=threshold).check()
