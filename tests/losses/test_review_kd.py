"""Knowledge review: deep stages of the student learn from shallow ones of the teacher."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdjax.losses import ReviewKD
from kdjax.losses.review_kd import hierarchical_context, nearest
from tests.losses.contract import Spec, contract
from tests.losses.formulas import batch_norm, conv, pool
from tests.losses.support import (
    agree,
    as_float64,
    example,
    finite,
    finite_differences,
    flat_float64,
    law,
    maps,
    own_variables,
    value,
)


def resize(x, shape):
    height, width = shape
    out = np.empty((len(x), height, width, x.shape[-1]))
    for i, j in np.ndindex(height, width):
        out[:, i, j] = x[:, int(i * x.shape[1] / height), int(j * x.shape[2] / width)]
    return out


def hcl(a, b):
    """Pooled first and compared afterwards, as the paper draws it."""
    total, weight, weights = np.mean((a - b) ** 2, axis=(1, 2, 3)), 1.0, 1.0
    for side in (4, 2, 1):
        height, width = a.shape[1:3]
        if side < height or side < width:
            cells = min(side, height), min(side, width)
            gap = pool(a, *cells) - pool(b, *cells)
            weight /= 2
            total = total + weight * np.mean(gap**2, axis=(1, 2, 3))
            weights += weight
    return total / weights


def formula(loss, student, teacher, labels, own):
    def conv_norm(name, x, pad):
        x = conv(x, own[f"{name}/conv/kernel"], pads=(pad, pad))
        return batch_norm(x, own[f"{name}/bn/scale"], own[f"{name}/bn/bias"])

    ours = loss.stages or ("stage1", "stage2")
    theirs = loss.teacher_stages or ours
    levels = [
        (
            student.get(f"before/{a}", student[a]) if loss.before_relu == "both" else student[a],
            teacher.get(f"before/{b}", teacher[b]),
        )
        for a, b in zip(ours, theirs, strict=True)
    ]
    levels += [(student["embedding"][:, None, None], teacher["embedding"][:, None, None])]
    total, review = 0.0, None
    for i in range(len(levels), 0, -1):
        f_s, f_t = levels[i - 1]
        x = conv_norm(f"narrow{i}", f_s, 0)
        if review is not None:
            review = resize(review, x.shape[1:3])
            kernel, bias = own[f"attention{i}/kernel"], own[f"attention{i}/bias"]
            gate = 1 / (1 + np.exp(-conv(np.concatenate([x, review], -1), kernel, bias)))
            x = x * gate[..., [0]] + review * gate[..., [1]]
        review = resize(x, f_t.shape[1:3])
        total = total + hcl(conv_norm(f"out{i}", review, 1), f_t)
    return total


DEEPEST_BIAS = "narrow3/bn/bias"

TestReviewKD = contract(
    Spec(
        ReviewKD,
        formula,
        cases={
            "default": ReviewKD(),
            "as_on_imagenet": ReviewKD(before_relu="both"),
            "of_other_sizes": ReviewKD(
                stages=("odd", "stage2"), teacher_stages=("double", "half"), width=2
            ),
        },
        other_values={
            "stages": ("stage1",),
            "teacher_stages": ("half", "stage2"),
            "width": 2,
            "before_relu": "both",
            "sync_batch_norm": False,
        },
        before_relu=lambda loss: loss.before_relu == "both",
        also_reads=("embedding",),
        flat=(DEEPEST_BIAS,),
    )
)


def test_the_deepest_bias_moves_what_it_is_fused_into():
    """That alone is no more than rounding of the slopes that `out3`'s batch norm takes away."""
    student, teacher, batch = example()
    loss = ReviewKD()
    params = own_variables(loss)["params"]
    slope = jax.grad(lambda own: value(loss, student, teacher, batch, own).sum())(params)
    own = flat_float64(params)
    expected = finite_differences(
        lambda moved: formula(
            loss, as_float64(student), as_float64(teacher), batch.label, {**own, **moved}
        ).sum(),
        {DEEPEST_BIAS: own[DEEPEST_BIAS]},
    )
    agree(slope["narrow3"]["bn"]["bias"], expected[DEEPEST_BIAS], tolerance=1e-3)


@jax.jit
def context(a, b):
    return hierarchical_context(a, b)


@law
@given(maps, maps, finite)
def test_hierarchical_context_weighs_all_resolutions_to_one(a, b, gap):
    """A gap that is the same everywhere is the same at every resolution."""
    np.testing.assert_allclose(context(a, a), 0)
    assert np.min(context(a, b)) >= 0
    flat = np.full_like(a, gap)
    np.testing.assert_allclose(context(flat, 0 * a), np.float32(gap) ** 2, rtol=1e-5)


@law
@given(maps, maps, st.randoms(use_true_random=False))
def test_hierarchical_context_does_not_see_the_order_of_channels(a, b, random):
    order = random.sample(range(a.shape[-1]), a.shape[-1])
    mixed = context(a[..., order], b[..., order])
    np.testing.assert_allclose(mixed, context(a, b), rtol=1e-5)


@pytest.mark.parametrize(
    ("old", "pixels"), [(1, [0, 0, 0]), (2, [0, 0, 0, 1, 1]), (5, [0, 1, 3]), (8, [0, 2, 4, 6])]
)
def test_the_nearest_pixel_is_pytorchs(old, pixels):
    x = jnp.arange(old, dtype=jnp.float32)[None, :, None, None]
    assert nearest(x, len(pixels), 2)[0, :, :, 0].tolist() == [[p, p] for p in pixels]


def test_a_shallow_stage_of_the_teacher_teaches_deep_stages_of_the_student():
    """That is what reviewing means: the value of the first level moves with the last map."""
    student, teacher, batch = example()
    loss = ReviewKD()

    def first_level(deep):
        features = {**student.features, "stage2": deep}
        before = teacher.preactivations
        moved = teacher._replace(preactivations={**before, "stage1": 0 * before["stage1"]})
        return sum(
            sign * value(loss, student._replace(features=features), t, batch).sum()
            for sign, t in ((1, teacher), (-1, moved))
        )

    assert np.abs(jax.grad(first_level)(student.features["stage2"])).max() > 1e-4


@pytest.mark.parametrize(("before_relu", "moves"), [("teacher", False), ("both", True)])
def test_the_teacher_is_read_before_its_relu_and_the_student_where_it_says(before_relu, moves):
    """What the authors' code reads: `preact=True` of the teacher, and of both on ImageNet."""
    student, teacher, batch = example()
    loss = ReviewKD(before_relu=before_relu)
    before = {name: array + 1 for name, array in student.preactivations.items()}
    features = {name: array + 1 for name, array in teacher.features.items()}
    plain, rectified, other = (
        value(loss, s, t, batch)
        for s, t in (
            (student, teacher),
            (student, teacher._replace(features=features)),
            (student._replace(preactivations=before), teacher),
        )
    )
    np.testing.assert_array_equal(rectified, plain)
    assert np.array_equal(other, plain) != moves


def test_there_is_a_width():
    with pytest.raises(ValueError, match=r"^width: 0 cannot work; it must be at least 1"):
        ReviewKD(width=0).check()
