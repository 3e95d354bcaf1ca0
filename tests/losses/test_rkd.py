"""Relational distillation: how far examples lie apart, and at what angles."""

import jax
import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from kdjax.losses import RKD
from tests.losses.contract import Spec, contract
from tests.losses.support import batch_of, embeddings, law, outputs, says, values_of


def formula(loss, student, teacher, labels, own):
    def distances(e):
        d = np.array([[np.sqrt(np.sum((a - b) ** 2)) for b in e] for a in e])
        return d / d[d > 0].mean()

    def angles(e):
        cosines = np.zeros((len(e),) * 3)
        for i, j, k in np.ndindex(cosines.shape):
            if i not in (j, k):
                u, v = e[j] - e[i], e[k] - e[i]
                cosines[i, j, k] = np.dot(u, v) / np.sqrt(np.dot(u, u) * np.dot(v, v))
        return cosines

    def smooth_l1(a, b):
        gap = np.abs(a - b)
        return np.mean(np.where(gap < 1, gap**2 / 2, gap - 0.5))

    s, t = student["embedding"], teacher["embedding"]
    return loss.distance * smooth_l1(distances(s), distances(t)) + loss.angle * smooth_l1(
        angles(s), angles(t)
    )


TestRKD = contract(
    Spec(
        RKD,
        formula,
        cases={
            "default": RKD(),
            "distances_alone": RKD(angle=0.0),
            "angles_alone": RKD(distance=0.0),
        },
        other_values={"distance": 100.0, "angle": 10.0},
        reads=("embedding",),
        every_day=True,
    )
)

LOSSES = [RKD(angle=0.0), RKD(distance=0.0)]
shift = st.integers(-50, 50).map(np.float32)


def relation(loss, e_s, e_t):
    return values_of(loss, says(embedding=e_s), says(embedding=e_t))


def assume_apart(e):
    """Where two examples all but meet, rounding alone turns the angle between them."""
    gaps = np.linalg.norm(e[:, None].astype(np.float64) - e, axis=-1)[np.triu_indices(len(e), 1)]
    assume(gaps.min() > 0.1)


@law
@given(embeddings, shift, st.sampled_from([0.25, 1.0, 8.0]), st.permutations(range(4)))
def test_rkd_is_zero_where_the_student_is_the_teacher_moved(e, shift, scale, turn):
    """Moved, scaled or turned, as far as coordinates that change places turn it."""
    assume_apart(e)
    for loss in LOSSES:
        moved = scale * e[:, turn] * np.float32([1, -1, 1, 1]) + shift
        np.testing.assert_allclose(relation(loss, e, moved), 0, atol=1e-5)


@law
@given(embeddings, embeddings, st.permutations(range(3)))
def test_rkd_does_not_see_the_order_of_the_batch(e_s, e_t, order):
    assume_apart(e_s)
    assume_apart(e_t)
    for loss in LOSSES:
        turned = relation(loss, e_s[order], e_t[order])
        np.testing.assert_allclose(turned, relation(loss, e_s, e_t), rtol=1e-3, atol=1e-5)


@law
@given(embeddings, embeddings)
def test_rkd_is_not_negative(e_s, e_t):
    assert min(relation(loss, e_s, e_t) for loss in LOSSES) >= 0


@pytest.mark.parametrize("scale", [1e-20, 1e-4, 1e4, 1e15])
def test_rkd_does_not_see_the_scale_of_the_embeddings(scale):
    """Not even where a squared distance is no float32 any more."""
    e_s, e_t = np.random.default_rng(0).normal(size=(2, 3, 4)).astype(np.float32)
    for loss in LOSSES:
        scaled = relation(loss, e_s * np.float32(scale), e_t)
        np.testing.assert_allclose(scaled, relation(loss, e_s, e_t), rtol=1e-4)


def test_rkd_sees_a_small_figure_far_from_the_origin():
    """Its sides are differences, which dots of far points would not resolve."""
    e = np.random.default_rng(0).integers(-8, 8, (3, 4)).astype(np.float32)
    for loss in LOSSES:
        np.testing.assert_allclose(relation(loss, e + 2**20, e), 0, atol=1e-10)


def test_rkd_is_small_in_memory():
    """A batch of 512 has 512 MB of angles, and with a width of 512 as much of differences."""
    student, teacher = outputs({}, 64, 0, 512), outputs({}, 512, 1, 512)
    batch = batch_of(np.zeros(512, int))

    def total(embedding):
        return RKD().apply({}, student._replace(embedding=embedding), teacher, batch)

    compiled = jax.jit(jax.grad(total)).lower(student.embedding).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < 50e6


@pytest.mark.parametrize("field", ["distance", "angle"])
def test_a_negative_weight_is_refused(field):
    with pytest.raises(ValueError, match=rf"^{field}: -1.0 cannot work; it must be >= 0"):
        RKD(**{field: -1.0}).check()
