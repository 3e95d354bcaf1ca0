"""Feature distillation of vision transformers: shallow layers mimicked, the deep one generated."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax.experiment.objective import Term
from kdjax.losses import ViTKD
from tests.losses.contract import Spec, contract
from tests.losses.formulas import conv, pool_to_common
from tests.losses.support import KEY, batch_of, example, value


@functools.cache  # finite differences ask for it thousands of times
def mask(loss, labels, patches):
    keys = loss.apply({}, batch_of(labels), rngs={"loss": KEY}, method="example_keys")
    noise = np.array([np.asarray(jax.random.uniform(key, (patches,))) for key in keys])
    chosen = np.zeros(noise.shape, bool)
    for row, numbers in zip(chosen, noise, strict=True):
        row[np.argsort(numbers)[int(patches * (1 - loss.masked)) :]] = True
    return chosen


def formula(loss, student, teacher, labels, own):
    ours = loss.stages or ("stage1", "stage2")
    pairs = [
        pool_to_common(student[s], teacher[t])
        for s, t in zip(ours, loss.teacher_stages or ours, strict=True)
    ]
    total = 0.0
    for i, (s, t) in enumerate(pairs):
        if f"align{i}/kernel" in own:
            s = s @ own[f"align{i}/kernel"] + own[f"align{i}/bias"]
        if i < len(pairs) - 1:
            total = total + loss.alpha * np.sum((s - t) ** 2, axis=(1, 2, 3))
    hidden = mask(loss, tuple(labels), s.shape[1] * s.shape[2]).reshape(*s.shape[:3], 1)
    x = np.where(hidden, own["mask_token"], s)
    x = conv(x, own["generator_conv1/kernel"], own["generator_conv1/bias"], 1, (1, 1))
    x = np.maximum(x, 0)
    x = conv(x, own["generator_conv2/kernel"], own["generator_conv2/bias"], 1, (1, 1))
    return total + loss.beta / loss.masked * np.sum((hidden * (x - t)) ** 2, axis=(1, 2, 3))


TestViTKD = contract(
    Spec(
        ViTKD,
        formula,
        cases={
            "default": ViTKD(),
            "three": ViTKD(
                stages=("stage1", "flat", "stage2"),
                teacher_stages=("half", "flat", "stage2"),
                masked=0.25,
            ),
            "all_masked": ViTKD(stages=("flat",), masked=1.0),
        },
        other_values={
            "stages": ("flat", "stage2"),
            "teacher_stages": ("stage2", "stage1"),
            "alpha": 1e-4,
            "beta": 1e-4,
            "masked": 0.9,
        },
        training=Term(ViTKD(alpha=1.0, beta=0.1), 1e-3),
    )
)


@pytest.mark.parametrize("masked", [0.1, 0.5, 0.75])
def test_as_many_patches_are_hidden_for_each_example(masked):
    """Seen by what reaches the student: nothing masked has a slope."""
    student, teacher, batch = example(64)
    loss = ViTKD(stages=("flat",), masked=masked)
    slope = jax.grad(lambda s: value(loss, s, teacher, batch).sum())(student).features["flat"]
    hidden = np.asarray(slope == 0).all(axis=-1).reshape(64, -1)
    patches = hidden.shape[1]
    assert (hidden.sum(axis=1) >= patches - int(patches * (1 - masked))).all()
    found = jnp.asarray(loss.apply({}, batch, patches, rngs={"loss": KEY}, method="_mask"))
    assert (found.sum(axis=1) == patches - int(patches * (1 - masked))).all()
    assert len({row.tobytes() for row in np.asarray(found)}) > 1, "every example has its own"


@pytest.mark.parametrize("masked", [0.0, 1.5])
def test_something_is_masked(masked):
    with pytest.raises(ValueError, match=r"^masked: .* it must be above 0 and at most 1"):
        ViTKD(masked=masked).check()
