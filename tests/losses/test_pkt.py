"""Probabilistic knowledge transfer: who is near whom."""

import numpy as np
from hypothesis import given

from kdjax.losses import PKT
from kdjax.objective import Term
from tests.losses.contract import Spec, contract
from tests.losses.support import embeddings, law, says, value_and_slope


def formula(loss, student, teacher, labels, own):
    rows = []
    for e in (student["embedding"], teacher["embedding"]):
        near = np.array([[a @ b / np.linalg.norm(a) / np.linalg.norm(b) for b in e] for a in e])
        near = (near + 1) / 2
        rows.append(near / near.sum(axis=1, keepdims=True))
    s, t = rows
    return np.mean(t * np.log((t + 1e-7) / (s + 1e-7)))


TestPKT = contract(
    Spec(
        PKT,
        formula,
        cases={"default": PKT()},
        reads=("embedding",),
        training=Term(PKT(), 3000.0),
    )
)


@law
@given(embeddings)
def test_a_student_as_the_teacher_up_to_scale_has_nothing_to_learn(e):
    value, slope = value_and_slope(PKT(), says(embedding=4 * e), says(embedding=e))
    np.testing.assert_allclose(value, 0, atol=1e-6)
    np.testing.assert_allclose(e * slope.embedding, 0, atol=1e-4)


@law
@given(embeddings, embeddings)
def test_it_is_a_divergence(e_s, e_t):
    assert value_and_slope(PKT(), says(embedding=e_s), says(embedding=e_t))[0] >= -1e-6
