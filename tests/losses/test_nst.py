"""Neuron selectivity transfer: which regions the channels look at."""

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given

from kdjax.experiment.objective import Term
from kdjax.losses import NST
from kdjax.losses.nst import discrepancy
from tests.losses.contract import Spec, contract
from tests.losses.formulas import pool_to_common, unit
from tests.losses.support import agree, law, maps, says, value_and_slope, values_of


def kernel_mean(a, b):
    """Over all pairs of channels of the two, one an example: `(a·b)²`."""
    pairs = zip(a, b, strict=True)
    return np.array([np.mean([[np.dot(x, y) ** 2 for x in p] for y in q]) for p, q in pairs])


def formula(loss, student, teacher, labels, own):
    total = 0.0
    stages = loss.stages or ("stage1", "stage2")
    for ours, theirs in zip(stages, loss.teacher_stages or stages, strict=True):
        s, t = (
            unit(f.reshape(len(f), -1, f.shape[-1]).swapaxes(1, 2))
            for f in pool_to_common(student[ours], teacher[theirs])
        )
        total = total + kernel_mean(s, s) + kernel_mean(t, t) - 2 * kernel_mean(s, t)
    return total


TestNST = contract(
    Spec(
        NST,
        formula,
        cases={
            "default": NST(),
            "fewer_pixels": NST(stages=("stage1",), teacher_stages=("half",)),
            "other_sizes": NST(stages=("odd", "stage1"), teacher_stages=("smaller", "double")),
        },
        other_values={"stages": ("stage1",), "teacher_stages": ("half", "stage2")},
        training=Term(NST(), 50.0),
    )
)


@law
@given(maps)
def test_nst_is_zero_where_the_student_is_the_teacher_in_any_order_and_scale(f):
    loss = NST(stages=("flat",))
    turned = f[..., ::-1] * np.array([1, 0.25, 8], np.float32)
    values, slope = value_and_slope(loss, says(stage=f), says(stage=turned))
    np.testing.assert_allclose(values, 0, atol=1e-6)
    np.testing.assert_allclose(f * slope.features["flat"], 0, atol=1e-5)


@law
@given(maps, maps)
def test_nst_is_not_negative(f_s, f_t):
    assert values_of(NST(stages=("flat",)), says(stage=f_s), says(stage=f_t)).min() >= -1e-6


@pytest.mark.parametrize("pixels", [1, 6, 7, 30])
def test_both_ways_to_compute_it_are_one(pixels):
    """Channels of zeros change no product over the channels, but which way is taken."""
    rng = np.random.default_rng(0)
    s, t = (jnp.asarray(rng.normal(size=(2, pixels, c)), jnp.float32) for c in (3, 4))
    padded = (jnp.pad(x, ((0, 0), (0, 0), (0, 40))) for x in (s, t))
    agree(discrepancy(*padded), discrepancy(s, t))
