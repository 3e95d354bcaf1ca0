"""Relational knowledge distillation: distances of pairs, angles of triples."""

from itertools import product

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given

from kdjax.losses import RKD
from kdjax.types import Outputs
from tests.losses.contract import Spec, contract
from tests.losses.support import batch_of, embeddings, law, says, values_of


def huber(x):
    return np.where(np.abs(x) < 1, x**2 / 2, np.abs(x) - 0.5)


def formula(loss, student, teacher, labels, own):
    distances, cosines = [], []
    for e in (student["embedding"], teacher["embedding"]):
        n = len(e)
        d = np.array([[np.linalg.norm(a - b) for b in e] for a in e])
        distances.append(d / d[d > 0].mean())
        cos = np.zeros((n, n, n))
        for i, j, k in product(range(n), repeat=3):
            if i not in (j, k):
                a, b = e[j] - e[i], e[k] - e[i]
                cos[i, j, k] = a @ b / np.linalg.norm(a) / np.linalg.norm(b)
        cosines.append(cos)
    pairs = huber(distances[0] - distances[1]).mean()
    triples = huber(cosines[0] - cosines[1]).mean()
    return loss.distance * pairs + loss.angle * triples


TestRKD = contract(
    Spec(
        RKD,
        formula,
        cases={"default": RKD(), "distances": RKD(angle=0.0), "angles": RKD(distance=0.0)},
        other_values={"distance": 1.0, "angle": 1.0},
        reads=("embedding",),
    )
)


@law
@given(embeddings, embeddings)
def test_it_does_not_see_scale_or_place(e_s, e_t):
    moved = says(embedding=np.float32(2) * e_s + np.float32(8))
    value = values_of(RKD(), says(embedding=e_s), says(embedding=e_t))
    assert value >= 0
    if np.abs(e_s).max() > 1 and np.ptp(e_s) > 1:
        np.testing.assert_allclose(
            values_of(RKD(), moved, says(embedding=e_t)), value, rtol=5e-2, atol=0.5
        )


def test_a_large_batch_needs_little_memory():
    """The triples of 512 examples alone would be 512 MB, several times over with gradients."""
    e = jax.ShapeDtypeStruct((512, 256), jnp.float32)
    z = jax.ShapeDtypeStruct((512, 10), jnp.float32)
    labels = batch_of(np.zeros(512, int))

    def total(student, teacher):
        return RKD().apply({}, student, teacher, labels)

    both = Outputs(z, {}, e)
    compiled = jax.jit(jax.grad(total)).lower(both, both).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < 200e6


@pytest.mark.parametrize("field", ["distance", "angle"])
def test_weights_are_not_negative(field):
    with pytest.raises(ValueError, match=rf"^{field}: -1.0 cannot work; it must be >= 0"):
        RKD(**{field: -1.0}).check()
