"""Correlation congruence: examples go together as the teacher has them go together."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdjax.losses import CC
from tests.losses.contract import Spec, contract
from tests.losses.support import embeddings, example, law, own_variables, says, value, values_of


def formula(loss, student, teacher, labels, own):
    e_s, e_t = student["embedding"], teacher["embedding"]
    n = len(e_s)
    if loss.variant == "code":
        ours, theirs = (
            np.array([own[f"embed_{who}/kernel"].T @ x + own[f"embed_{who}/bias"] for x in e])
            for who, e in (("student", e_s), ("teacher", e_t))
        )
        apart = np.abs(ours - theirs)
        return sum(np.dot(apart[i], apart[i + 1]) for i in range(n - 1)) / (n - 1)

    def kernel(a, b):
        dot = np.dot(a, b) / np.sqrt(np.dot(a, a) * np.dot(b, b))
        orders = [math.exp(-0.8) * 0.8**p / math.factorial(p) * dot**p for p in range(3)]
        return sum(orders)

    return sum(
        (kernel(e_s[i], e_s[j]) - kernel(e_t[i], e_t[j])) ** 2 for i in range(n) for j in range(n)
    ) / (n * n)


TestCC = contract(
    Spec(
        CC,
        formula,
        cases={"code": CC(), "narrow": CC(width=5), "paper": CC(variant="paper")},
        other_values={"width": 64, "variant": "paper"},
        reads=("embedding",),
    )
)

PAPER = CC(variant="paper")


def test_cc_learns_two_linear_layers_or_nothing():
    shapes = {name: layer["kernel"].shape for name, layer in own_variables(CC())["params"].items()}
    student, teacher, _ = example()
    widths = (student.embedding.shape[1], teacher.embedding.shape[1])
    assert shapes == {"embed_student": (widths[0], 128), "embed_teacher": (widths[1], 128)}
    assert not own_variables(PAPER)


def test_cc_sees_a_difference_where_the_next_example_has_it_too():
    """Examples that differ between others that do not cost nothing."""
    student, _, batch = example()
    layer = own_variables(CC())["params"]["embed_student"]
    same = {"embed_student": layer, "embed_teacher": layer}

    def apart(*examples):
        moved = student.embedding.at[np.array(examples)].add(1.0)
        return value(CC(), student._replace(embedding=moved), student, batch, same)

    assert apart(0, 2) == 0
    assert apart(0, 1) > 0.1


@law
@given(embeddings, st.sampled_from([0.25, 1.0, 8.0]))
def test_correlations_do_not_see_the_size_of_embeddings(e, scale):
    values = values_of(PAPER, says(embedding=e), says(embedding=e * np.float32(scale)))
    np.testing.assert_allclose(values, 0, atol=1e-10)


@law
@given(embeddings, embeddings, st.permutations(range(3)))
def test_correlations_do_not_see_the_order_of_the_batch(e_s, e_t, order):
    values = values_of(PAPER, says(embedding=e_s), says(embedding=e_t))
    turned = values_of(PAPER, says(embedding=e_s[order]), says(embedding=e_t[order]))
    np.testing.assert_allclose(turned, values, rtol=1e-4, atol=1e-8)


def test_correlations_are_those_of_the_gaussian_kernel():
    """To the second order: off by less than the third term, `exp(-0.8) 0.8³ / 6` and a bit."""
    e_s = np.array([[1, 0], [0, 1], [1, 1]], np.float32)
    e_t = np.array([[1, 0], [1, 0], [1, 0]], np.float32)
    u = e_s / np.linalg.norm(e_s, axis=-1, keepdims=True)
    kernel = np.exp(-0.4 * np.sum((u[:, None] - u) ** 2, axis=-1))
    expected = np.sqrt(np.mean((kernel - 1) ** 2))
    ours = np.sqrt(values_of(PAPER, says(embedding=e_s), says(embedding=e_t)))
    np.testing.assert_allclose(ours, expected, atol=0.05)


def test_a_width_of_zero_is_refused():
    with pytest.raises(ValueError, match=r"^width: 0 cannot work; it must be at least 1"):
        CC(width=0).check()
