"""Masked generative distillation: the teacher's map from a part of the student's."""

import functools

import jax
import numpy as np
import pytest

from kdjax.experiment.objective import Term
from kdjax.losses import MGD
from tests.losses.contract import Spec, contract
from tests.losses.formulas import conv, pool_to_common
from tests.losses.support import KEY, batch_of, example, own_variables, value


@functools.cache  # finite differences ask for it thousands of times
def mask(loss, labels, height, width, channels):
    keys = loss.apply({}, batch_of(labels), rngs={"loss": KEY}, method="example_keys")
    shape = (1, 1, channels) if loss.variant == "code" else (height, width, 1)
    return np.array([np.asarray(jax.random.uniform(key, shape)) >= loss.masked for key in keys])


def formula(loss, student, teacher, labels, own):
    ours = loss.stage or "stage2"
    s, t = pool_to_common(student[ours], teacher[loss.teacher_stage or ours])
    if "align/kernel" in own:
        s = conv(s, own["align/kernel"], own["align/bias"])
    x = s * mask(loss, tuple(labels), *t.shape[1:])
    x = conv(x, own["generator_conv1/kernel"], own["generator_conv1/bias"], 1, (1, 1))
    x = np.maximum(x, 0)
    x = conv(x, own["generator_conv2/kernel"], own["generator_conv2/bias"], 1, (1, 1))
    return np.sum((x - t) ** 2, axis=(1, 2, 3))


TestMGD = contract(
    Spec(
        MGD,
        formula,
        cases={
            "default": MGD(),
            "pixels": MGD(variant="paper", masked=0.5),
            "same_widths": MGD(stage="flat", masked=0.4),
            "other_sizes": MGD(stage="stage1", teacher_stage="half"),
        },
        other_values={
            "stage": "stage1",
            "teacher_stage": "flat",
            "masked": 0.9,
            "variant": "paper",
        },
        training=Term(MGD(), 1e-3),
    )
)


@pytest.mark.parametrize("variant", ["code", "paper"])
def test_the_mask_hides_its_share_of_channels_or_pixels(variant):
    """Seen by what reaches the student: nothing masked has a slope."""
    student, teacher, batch = example(64)
    loss = MGD(stage="flat", variant=variant, masked=0.3)
    slope = jax.grad(lambda s: value(loss, s, teacher, batch).sum())(student).features["flat"]
    hidden = np.asarray(slope) == 0
    axes = (1, 2) if variant == "code" else (3,)
    assert (hidden.all(axis=axes) == hidden.any(axis=axes)).all()
    np.testing.assert_allclose(hidden.mean(), 0.3, atol=0.1)
    assert len({row.tobytes() for row in hidden}) > 1, "every example has its own"


def test_the_mask_is_new_with_every_key():
    student, teacher, batch = example(16)
    loss = MGD(stage="flat", masked=0.5)
    first, again, other = (
        loss.apply(own_variables(loss), student, teacher, batch, rngs={"loss": jax.random.key(i)})
        for i in (0, 0, 1)
    )
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_some_of_the_map_is_left():
    with pytest.raises(ValueError, match=r"^masked: 1.0 cannot work; it must be in \[0, 1\)"):
        MGD(masked=1.0).check()
