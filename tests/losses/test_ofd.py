"""The overhaul of feature distillation: margins, and a distance that knows what a ReLU hides."""

import math

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdjax.experiment.objective import Term
from kdjax.losses import OFD
from kdjax.losses.ofd import normal_margin, partial_distance
from tests.losses.contract import Spec, contract
from tests.losses.formulas import batch_norm, conv, pool_to_common
from tests.losses.support import LABELS, law, maps, says, value


def average_negative(mean, deviation):
    z = mean / deviation
    below = math.erfc(z / math.sqrt(2)) / 2
    if below <= 0.001:
        return -3 * deviation
    return mean - deviation * math.exp(-(z**2) / 2) / math.sqrt(2 * math.pi) / below


def margin(channel, variant):
    if variant == "paper":
        return channel[channel < 0].mean()
    return average_negative(channel.mean(), channel.std())


def formula(loss, student, teacher, labels, own):
    ours = loss.stages or ("stage1", "stage2")
    pairs = list(zip(ours, loss.teacher_stages or ours, strict=True))
    total = 0
    for i, (a, b) in enumerate(pairs):
        s = student.get(f"before/{a}", student[a])
        t = teacher.get(f"before/{b}", teacher[b])
        s, t = pool_to_common(s, t)
        layer = f"connector_{a}"
        s = conv(s, own[f"{layer}/conv/kernel"])
        s = batch_norm(s, own[f"{layer}/bn/scale"], own[f"{layer}/bn/bias"])
        clipped = np.empty_like(t)
        for c in range(t.shape[-1]):
            clipped[..., c] = np.maximum(t[..., c], margin(t[..., c], loss.variant))
        skipped = (s <= clipped) & (clipped <= 0)
        gap = np.where(skipped, 0, (s - clipped) ** 2).sum(axis=(1, 2, 3))
        total += gap / 2 ** (len(pairs) - i - 1)
    return total


TestOFD = contract(
    Spec(
        OFD,
        formula,
        talks=True,
        cases={
            "default": OFD(),
            "paper": OFD(variant="paper"),
            "other_sizes": OFD(
                stages=("stage1", "stage2", "odd"), teacher_stages=("half", "double", "odd")
            ),
        },
        other_values={
            "stages": ("stage2", "flat"),
            "teacher_stages": ("half", "flat"),
            "variant": "paper",
            "sync_batch_norm": False,
        },
        before_relu=lambda loss: True,
        training=Term(OFD(), 0.01),
    )
)


@law
@given(maps, maps)
def test_the_distance_is_that_of_activations_and_of_what_must_become_inactive(f_s, f_t):
    """For an active teacher the square; for an inactive one only what exceeds its value."""
    distance = partial_distance(jnp.asarray(f_s), jnp.asarray(f_t))
    excess = np.maximum(f_s - f_t, 0)
    np.testing.assert_allclose(distance, np.where(f_t > 0, (f_s - f_t) ** 2, excess**2))


@pytest.mark.parametrize(
    ("mean", "deviation"), [(0, 1), (-2, 0.5), (-20, 0.5), (1, 2), (3, 1), (3.2, 1), (50, 2)]
)
def test_the_margin_is_the_mean_of_what_is_negative(mean, deviation):
    (ours,) = normal_margin(jnp.array([mean], "float32"), jnp.array([deviation], "float32"))
    np.testing.assert_allclose(ours, average_negative(mean, deviation), rtol=1e-5)
    drawn = np.random.default_rng(0).normal(mean, deviation, 1_000_000)
    if (drawn < 0).mean() > 0.0012:
        np.testing.assert_allclose(ours, drawn[drawn < 0].mean(), rtol=0.02)


@pytest.mark.parametrize(("mean", "expected"), [(2, 0), (0, 0), (-2, -2)])
def test_the_margin_of_a_channel_that_never_changes(mean, expected):
    assert normal_margin(jnp.array([mean], "float32"), jnp.zeros(1)) == expected


@law
@given(maps, maps, st.sampled_from(["code", "paper"]))
def test_what_is_below_the_margin_may_be_anywhere_in_its_channel(f_s, f_t, variant):
    moved = f_t.copy()
    for c in range(f_t.shape[-1]):
        if not (f_t[..., c] < 0).any():
            continue
        if variant == "code" and f_t[..., c].std() == 0:
            continue
        below = f_t[..., c] < margin(np.float64(f_t[..., c]), variant)
        moved[..., c][below] = f_t[..., c][below][::-1]
    loss = OFD(stages=("flat",), variant=variant)
    same, other = (value(loss, says(stage=f_s), says(stage=t), LABELS) for t in (f_t, moved))
    np.testing.assert_allclose(other, same, rtol=1e-4, atol=1e-4)
