"""Cross-entropy: the task itself."""

import numpy as np
import pytest

from kdjax.losses import CrossEntropy
from tests.losses.contract import Spec, contract
from tests.losses.formulas import class_weights, log_softmax
from tests.losses.support import CLASSES, LABELS, says

WEIGHTS = (1.0, 2.0, 0.0, 3.0, 0.5)


def formula(loss, student, teacher, labels, own):
    nats = -class_weights(loss) * log_softmax(student["logits"])
    hard = nats[range(len(labels)), labels]
    return (1 - loss.label_smoothing) * hard + loss.label_smoothing * nats.mean(axis=-1)


TestCrossEntropy = contract(
    Spec(
        CrossEntropy,
        formula,
        cases={
            "hard": CrossEntropy(),
            "smoothed": CrossEntropy(label_smoothing=0.3, class_weights=WEIGHTS),
            "balanced": CrossEntropy(class_balance=1.0),
        },
        other_values={"label_smoothing": 0.1, "class_weights": WEIGHTS, "class_balance": 0.9},
    )
)


def test_the_task_needs_no_teacher():
    assert not CrossEntropy.needs_teacher


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
def test_mixed_images_have_a_share_of_two_labels(smoothing):
    loss = CrossEntropy(label_smoothing=smoothing)
    logits = np.random.default_rng(0).normal(size=(3, CLASSES)).astype(np.float32)
    share, other = np.array([0.25, 1.0, 0.0], np.float32), np.array([3, 1, 2])
    one, another = (
        loss.apply({}, says(logits), None, LABELS._replace(label=label))
        for label in (LABELS.label, other)
    )
    mixed = loss.apply({}, says(logits), None, LABELS._replace(other_label=other, share=share))
    np.testing.assert_allclose(mixed, share * one + (1 - share) * another, rtol=1e-6)
