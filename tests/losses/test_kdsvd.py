"""Singular value decomposition: main directions of consecutive stages."""

from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given

from kdjax.experiment.objective import Term
from kdjax.losses import KDSVD
from kdjax.losses.kdsvd import right_singular_vectors
from kdjax.models import SmallCNN
from tests.losses.contract import Spec, contract
from tests.losses.support import (
    agree,
    example,
    finite_differences,
    law,
    maps,
    says,
    value_and_slope,
    values_of,
)
from tests.training import TEACHER

STAGES = {"stages": ("stage1", "odd"), "teacher_stages": ("odd", "double")}


def rows(f):
    """Right singular vectors of one example's map, from the largest singular value."""
    return np.linalg.svd(f.reshape(-1, f.shape[-1]), full_matrices=False)[2]


def aligned(f_s, f_t):
    v_t = rows(f_t)[0]
    v_t = v_t * np.sign(v_t.sum())
    v_s = max(rows(f_s)[:4], key=lambda v: abs(v @ v_t))
    return v_s * np.sign(v_s @ v_t), v_t


def formula(loss, student, teacher, labels, own):
    def similarity(v, w):
        return np.array([[np.exp(-((a - b) ** 2) / 8) for b in w] for a in v])

    values = np.zeros(len(labels))
    pairs = list(zip(loss.stages, loss.teacher_stages, strict=True))
    for b in range(len(values)):
        both = [aligned(student[ours][b], teacher[theirs][b]) for ours, theirs in pairs]
        for (v_s, v_t), (w_s, w_t) in pairwise(both):
            values[b] += np.sum((similarity(v_s, w_s) - similarity(v_t, w_t)) ** 2)
    return values


TestKDSVD = contract(
    Spec(
        KDSVD,
        formula,
        given=STAGES,
        cases={
            "default": KDSVD(**STAGES),
            "three": KDSVD(
                stages=("stage1", "stage2", "odd"), teacher_stages=("odd", "flat", "double")
            ),
        },
        other_values={"stages": ("stage2", "odd"), "teacher_stages": ("flat", "double")},
        training=Term(KDSVD(), 30.0),
        student=SmallCNN(widths=TEACHER.widths, hidden=16, mean=TEACHER.mean, std=TEACHER.std),
    )
)


@law
@given(maps)
def test_kdsvd_is_zero_where_the_student_is_a_multiple_of_the_teacher(f):
    loss = KDSVD(stages=("flat", "flat"))
    values, slope = value_and_slope(loss, says(stage=-4 * f), says(stage=f))
    np.testing.assert_allclose(values, 0, atol=1e-6)
    assert np.isfinite(slope.features["flat"]).all()


@law
@given(maps, maps)
def test_kdsvd_is_not_negative(f_s, f_t):
    loss = KDSVD(stages=("flat", "flat"))
    assert values_of(loss, says(stage=f_s), says(stage=f_t)).min() >= 0


@pytest.mark.parametrize("shape", [(4, 5, 3), (1, 2, 6), (2, 2, 4)])
def test_singular_vectors_move_as_those_of_numpy(shape):
    """Also those of a map of fewer pixels than channels."""
    rng = np.random.default_rng(0)
    f = rng.normal(0.5, 1, (1, *shape)).astype(np.float32)
    weights = rng.normal(size=(shape[-1], 2))
    mine = right_singular_vectors(jnp.asarray(f), 2)[0]
    expected = rows(f[0].astype(np.float64))[:2].T
    signs = np.sign((mine * expected).sum(axis=0))
    agree(mine * signs, expected)

    def ours(f):
        return jnp.vdot(right_singular_vectors(f, 2)[0] * signs, weights)

    def theirs(arrays):
        vectors = rows(arrays["f"][0])[:2].T
        return np.vdot(vectors * np.sign((vectors * expected).sum(axis=0)), weights)

    slope = finite_differences(theirs, {"f": f.astype(np.float64)})["f"]
    agree(jax.grad(ours)(jnp.asarray(f)), slope)


@pytest.mark.parametrize("shape", [(2, 2, 4), (2, 2, 2), (1, 2, 4)])
def test_equal_singular_values_have_a_finite_slope(shape):
    f = jnp.eye(shape[0] * shape[1], shape[-1]).reshape(1, *shape)
    slope = jax.grad(lambda f: jnp.square(right_singular_vectors(f, 4)[:, 0]).sum())(f)
    assert jnp.isfinite(slope).all()


def test_other_widths_are_refused():
    message = r"KDSVD: the student's stage1 of 4x6x3 .* teacher's stage1 of 4x6x4; choose stages of"
    with pytest.raises(ValueError, match=message):
        KDSVD().init(jax.random.key(0), *example())
