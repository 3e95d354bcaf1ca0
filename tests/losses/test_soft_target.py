"""Soft targets: the divergence from the teacher's softened answer."""

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdjax.losses import Ramp, SoftTarget
from tests.losses.contract import Spec, contract
from tests.losses.formulas import divergence
from tests.losses.support import CLASSES, LABELS, law, logits, says, value_and_slope


def formula(loss, student, teacher, labels, own):
    return divergence(teacher["logits"], student["logits"], loss.temperature)


TestSoftTarget = contract(
    Spec(
        SoftTarget,
        formula,
        cases={"default": SoftTarget(), "at_one": SoftTarget(temperature=1.0)},
        other_values={"temperature": 2.0},
        every_day=True,
    )
)


@law
@given(logits, st.sampled_from([0.5, 1.0, 4.0, 20.0]))
def test_soft_target_is_zero_where_the_student_is_the_teacher(z, temperature):
    values, slope = value_and_slope(SoftTarget(temperature=temperature), says(z), says(z))
    np.testing.assert_allclose(values, 0, atol=1e-6 * temperature**2)
    np.testing.assert_allclose(slope.logits, 0, atol=1e-5 * temperature)


def test_hot_soft_targets_match_logits():
    """Hinton et al., section 2.1: as T grows the gradient tends to `(z_s - z_t) / classes`."""
    rng = np.random.default_rng(0)
    z_s, z_t = (rng.normal(size=(3, CLASSES)).astype(np.float32) for _ in range(2))
    limit = ((z_s - z_s.mean(-1, keepdims=True)) - (z_t - z_t.mean(-1, keepdims=True))) / CLASSES
    errors = []
    for temperature in (1.0, 10.0, 100.0):
        _, slope = value_and_slope(SoftTarget(temperature=temperature), says(z_s), says(z_t))
        errors.append(np.abs(slope.logits - limit).max())
    assert errors[2] < 0.02 * np.abs(limit).max()
    assert errors[2] < 0.2 * errors[1] < 0.1 * errors[0]


def test_a_temperature_can_move_with_the_epochs():
    """By the epoch of each example, since batches straddle epochs."""
    rng = np.random.default_rng(0)
    student, teacher = (says(rng.normal(size=(3, CLASSES)).astype(np.float32)) for _ in range(2))
    batch = LABELS._replace(epoch=jnp.array([0, 5, 20]))
    moving = SoftTarget(temperature=Ramp(start=8.0, stop=4.0, epochs=10.0))
    values = moving.apply({}, student, teacher, batch)
    for i, temperature in enumerate([8.0, 6.0, 4.0]):
        fixed = SoftTarget(temperature=temperature).apply({}, student, teacher, batch)
        np.testing.assert_allclose(values[i], fixed[i], rtol=1e-6)


@pytest.mark.parametrize("temperature", [0.0, -1.0, Ramp(start=0.0, stop=4.0)])
def test_temperatures_are_positive(temperature):
    with pytest.raises(ValueError, match=r"^temperature: .* cannot work; it must be positive"):
        SoftTarget(temperature=temperature).check()
