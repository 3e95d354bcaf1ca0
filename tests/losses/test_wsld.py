"""Weighted soft labels: soft targets count less where the student does better."""

import numpy as np

from kdjax.losses import WSLD, SoftTarget
from tests.losses.contract import Spec, contract
from tests.losses.formulas import divergence, label_loss
from tests.losses.support import CLASSES, says, values_of


def formula(loss, student, teacher, labels, own):
    ratio = label_loss(student["logits held"], labels) / (
        label_loss(teacher["logits"], labels) + 1e-7
    )
    soft = divergence(teacher["logits"], student["logits"], loss.temperature)
    return (1 - np.exp(-ratio)) * soft


TestWSLD = contract(
    Spec(
        WSLD,
        formula,
        cases={"default": WSLD(), "at_four": WSLD(temperature=4.0)},
        other_values={"temperature": 4.0},
    )
)


def test_weighted_soft_labels_count_by_who_does_better():
    """All of the soft targets where the teacher is right, almost none where the student is."""
    right, wrong = 20 * np.eye(CLASSES)[[0, 2, 4]], 20 * np.eye(CLASSES)[[1, 3, 0]]
    right, wrong = right.astype(np.float32), wrong.astype(np.float32)
    for z_s, z_t, weight in ((wrong, right, 1.0), (right, wrong, 0.0)):
        soft = values_of(SoftTarget(temperature=2.0), says(z_s), says(z_t))
        values = values_of(WSLD(temperature=2.0), says(z_s), says(z_t))
        np.testing.assert_allclose(values / soft, weight, atol=1e-6)
