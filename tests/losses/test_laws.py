"""Laws that several losses obey, and what is true of the union."""

import dataclasses
import re
import typing
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given

from kdjax.losses import (
    DKD,
    WSLD,
    CrossEntropy,
    DistillationLoss,
    HardTarget,
    LogitMSE,
    LogitStandardization,
    Loss,
    SoftTarget,
)
from tests.losses.contract import specs
from tests.losses.support import (
    example,
    law,
    logits,
    says,
    value_and_slope,
    values_of,
    whole,
    whole_logits,
)

LOSSES = typing.get_args(Loss)[:-1]

LOGIT_LOSSES = [
    CrossEntropy(),
    CrossEntropy(label_smoothing=0.2),
    SoftTarget(),
    HardTarget(),
    LogitMSE(),
    LogitStandardization(),
    DKD(),
    WSLD(),
]


def test_the_table_of_methods_has_every_loss_with_its_fields():
    text = (Path(__file__).parents[2] / "docs" / "methods.md").read_text()
    rows = [line.split(" | ") for line in text.splitlines() if line.startswith("| `")]
    named = [re.match(r"\| `(\w+)`", row[0])[1] for row in rows]
    with_fields = list(zip(named, rows, strict=True))[-len(LOSSES) :]
    fields = {name: set(re.findall(r"`(\w+)`", row[2])) for name, row in with_fields}
    assert fields == {
        kind.__name__: {f.name for f in dataclasses.fields(kind)} - {"parent", "name"}
        for kind in LOSSES
    }
    assert all(named.count(kind.__name__) == 2 for kind in LOSSES if kind is not CrossEntropy)


def test_every_loss_of_the_union_has_its_contract():
    assert {spec.kind for spec in specs()} == set(LOSSES)


@law
@given(logits)
def test_teacher_logit_losses_are_zero_where_the_student_is_the_teacher(z):
    for loss in (LogitMSE(), LogitStandardization(), DKD(beta=1.0, temperature=1.0), WSLD()):
        values, slope = value_and_slope(loss, says(z), says(z))
        np.testing.assert_allclose(values, 0, atol=2e-5)
        # Equal logits are divided by next to nothing, and so is the slope's rounding.
        steep = 1 / (1e-7 + z.std(axis=-1, keepdims=True))
        scale = np.maximum(1, steep) if isinstance(loss, LogitStandardization) else 1
        np.testing.assert_allclose(slope.logits / scale, 0, atol=1e-4)


@law
@given(logits, logits)
def test_logit_losses_are_not_negative(z_s, z_t):
    for loss in LOGIT_LOSSES:
        assert values_of(loss, says(z_s), says(z_t)).min() >= -1e-4, loss


@law
@given(whole_logits, whole_logits, whole, whole)
def test_logit_losses_do_not_see_a_common_shift(z_s, z_t, a, b):
    """Whole numbers, which a shift does not round: it cannot turn a decision or a small ratio."""
    for loss in (
        CrossEntropy(label_smoothing=0.2),
        SoftTarget(temperature=2.0),
        HardTarget(),
        LogitStandardization(),
        DKD(),
        WSLD(),
    ):
        values = values_of(loss, says(z_s), says(z_t))
        shifted = values_of(loss, says(z_s + np.float32(a)), says(z_t + np.float32(b)))
        np.testing.assert_allclose(shifted, values, rtol=1e-3, atol=2e-3)


def test_an_unfinished_loss_says_what_is_missing():
    class Unfinished(DistillationLoss):
        pass

    with pytest.raises(TypeError, match="Unfinished does not define __call__"):
        Unfinished().apply({}, *example())
