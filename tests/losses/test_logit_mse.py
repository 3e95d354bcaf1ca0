"""Squared differences of logits."""

import numpy as np

from kdjax.losses import LogitMSE
from tests.losses.contract import Spec, contract


def formula(loss, student, teacher, labels, own):
    gap = student["logits"] - teacher["logits"]
    return np.linalg.norm(gap, axis=-1) ** 2 / gap.shape[-1]


TestLogitMSE = contract(Spec(LogitMSE, formula, cases={"default": LogitMSE()}))
