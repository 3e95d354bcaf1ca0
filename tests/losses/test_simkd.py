"""The reused classifier's loss: the projected map against the teacher's last."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given

from kdjax.losses import SimKD
from kdjax.models import ReusedClassifier
from kdjax.types import Outputs
from tests.losses.contract import Spec, contract
from tests.losses.formulas import pool_to_common
from tests.losses.support import LABELS, agree, as_float64, finite_differences, law, maps, value
from tests.support import TINY


def formula(loss, student, teacher, labels, own):
    last = teacher.get("pooled/stage2", teacher["embedding"][:, None, None])
    ours, theirs = pool_to_common(student["projected"], last)
    values = []
    for p, f, embedding in zip(ours, theirs, teacher["embedding"], strict=True):
        gap = p - (f - f.mean(axis=(0, 1)) + embedding)
        values.append(np.sum(gap**2) / gap.size)
    return np.array(values)


TestSimKD = contract(
    Spec(
        SimKD,
        formula,
        cases={"default": SimKD()},
        reads=("projected",),
        student=ReusedClassifier(backbone=TINY, width=24, mean=TINY.mean, std=TINY.std),
    )
)


def drawn(size, projected_size):
    """A teacher whose embedding is not quite the mean of its last map."""
    rng = np.random.default_rng(0)

    def normal(*shape):
        return jnp.asarray(rng.normal(size=(3, *shape)), jnp.float32)

    features = {"stage1": normal(8, 8, 2), "stage2": normal(*size, 5)}
    pooled = {"stage2": normal(*size, 5)}
    teacher = Outputs(normal(4), features, normal(5), pooled=pooled)
    return Outputs(normal(4), {"projected": normal(*projected_size, 5)}, normal(5)), teacher


@pytest.mark.parametrize(
    ("size", "projected_size"), [((4, 6), (4, 6)), ((5, 7), (2, 3)), ((4, 2), (8, 3))]
)
def test_a_map_is_compared_pixel_by_pixel(size, projected_size):
    student, teacher = drawn(size, projected_size)
    s, t = as_float64(student), as_float64(teacher)
    agree(value(SimKD(), student, teacher, LABELS), formula(SimKD(), s, t, None, {}))
    slope = jax.grad(lambda out: value(SimKD(), out, teacher, LABELS).sum())(student)
    expected = finite_differences(
        lambda moved: formula(SimKD(), {**s, **moved}, t, None, {}).sum(),
        {"projected": s["projected"]},
    )
    agree(slope.features["projected"], expected["projected"])
    assert SimKD().taps(student, teacher) == (("projected", "stage2"),)


@law
@given(maps, maps)
def test_a_student_that_matches_has_the_mean_that_the_classifier_reads(f, g):
    """Whatever the teacher does between its last map and its embedding."""
    embedding = jnp.asarray(g[:, 0, 0])
    last = {"stage1": jnp.asarray(f)}
    teacher = Outputs(jnp.zeros((3, 5)), last, embedding, pooled=last)
    shift = embedding[:, None, None] - f.mean(axis=(1, 2), keepdims=True)
    student = Outputs(teacher.logits, {"projected": f + shift}, embedding)
    np.testing.assert_allclose(value(SimKD(), student, teacher, LABELS), 0, atol=1e-8)
    np.testing.assert_allclose((f + shift).mean(axis=(1, 2)), embedding, atol=1e-4)


@law
@given(maps, maps)
def test_where_the_embedding_is_the_mean_it_is_the_plain_squared_gap(f, g):
    last = {"stage1": jnp.asarray(f)}
    teacher = Outputs(jnp.zeros((3, 5)), last, jnp.asarray(f.mean((1, 2))), pooled=last)
    student = Outputs(teacher.logits, {"projected": jnp.asarray(g)}, teacher.embedding)
    plain = np.square(g - f).mean(axis=(1, 2, 3))
    np.testing.assert_allclose(
        value(SimKD(), student, teacher, LABELS), plain, rtol=1e-4, atol=1e-3
    )
