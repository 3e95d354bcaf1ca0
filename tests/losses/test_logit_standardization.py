"""Logit standardization: soft targets of z-scores."""

import numpy as np
import pytest

from kdjax.losses import LogitStandardization
from tests.losses.contract import Spec, contract
from tests.losses.formulas import divergence
from tests.losses.support import LABELS, example, says


def formula(loss, student, teacher, labels, own):
    def standard(z):
        spread = np.std(z, axis=-1, ddof=1, keepdims=True)
        return (z - np.mean(z, axis=-1, keepdims=True)) / (1e-7 + spread)

    pair = standard(teacher["logits"]), standard(student["logits"])
    return divergence(*pair, loss.temperature)


TestLogitStandardization = contract(
    Spec(
        LogitStandardization,
        formula,
        cases={
            "default": LogitStandardization(),
            "at_half": LogitStandardization(temperature=0.5),
        },
        other_values={"temperature": 1.0},
    )
)


@pytest.mark.parametrize("scale", [0.1, 3.0, 100.0])
def test_logit_standardization_does_not_see_the_scale_of_logits(scale):
    z_s, z_t = (np.asarray(out.logits) for out in example()[:2])
    loss = LogitStandardization()
    expected = loss.apply({}, says(z_s), says(z_t), LABELS)
    np.testing.assert_allclose(
        loss.apply({}, says(z_s * scale), says(z_t / scale), LABELS), expected, rtol=1e-4
    )
