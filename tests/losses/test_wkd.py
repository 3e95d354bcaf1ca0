"""Wasserstein distance between answers: like classes are cheap to move between."""

import numpy as np
import pytest

from kdjax.experiment.objective import Term
from kdjax.losses import WKD, Ramp
from tests.losses.contract import Spec, contract
from tests.losses.formulas import log_softmax
from tests.losses.support import LABELS, says


def formula(loss, student, teacher, labels, own):
    """Each example alone, its label deleted; theirs is in batches, with the label masked."""
    w = own["teacher/kernel"].T
    w = w / np.linalg.norm(w, axis=1, keepdims=True)
    all_costs = np.maximum(1 - np.exp(-loss.sharpness * (1 - w @ w.T)), 0) + 1e-8
    gamma = loss.gamma.start if isinstance(loss.gamma, Ramp) else loss.gamma
    values = []
    for z_s, z_t, y in zip(student["logits"], teacher["logits"], labels, strict=True):
        of_label = -np.exp(log_softmax(z_t)[y]) * log_softmax(z_s)[y]
        q, p = (np.exp(log_softmax(np.delete(z, y) / loss.temperature)) for z in (z_s, z_t))
        cost = np.delete(np.delete(all_costs, y, 0), y, 1)
        kernel = np.exp(-cost / loss.entropy)
        u = np.full(len(q), 1 / len(q))
        for _ in range(loss.iterations):
            v = p / (kernel.T @ u + 1e-8)
            u = q / (kernel @ v + 1e-8)
        flow = np.diag(u) @ kernel @ np.diag(v)
        values.append(of_label + gamma * np.sum(flow * cost))
    return np.array(values)


TestWKD = contract(
    Spec(
        WKD,
        formula,
        cases={
            "default": WKD(),
            "label_alone": WKD(gamma=0.0),
            "ramp": WKD(gamma=Ramp(start=30.0, stop=0.0), temperature=2.0, iterations=1),
            "blurred": WKD(gamma=10.0, sharpness=2.0, entropy=0.5),
        },
        other_values={
            "gamma": 100.0,
            "temperature": 2.0,
            "sharpness": 2.0,
            "entropy": 0.2,
            "iterations": 1,
        },
        training=Term(WKD(gamma=10.0, temperature=2.0)),
    )
)


def test_to_be_sure_of_another_class_costs_what_lies_between_the_two():
    rng = np.random.default_rng(0)
    kernel = rng.normal(size=(4, 5)).astype(np.float32)
    w = kernel.T / np.linalg.norm(kernel.T, axis=1, keepdims=True)
    ours, theirs = (1, 3, 2), (3, 4, 0)  # never the labels, 0, 2 and 4
    z_s, z_t = (200 * np.eye(5, dtype=np.float32)[list(sure)] for sure in (ours, theirs))
    variables = {"teacher": {"kernel": kernel, "bias": np.zeros(5, np.float32)}}
    values = [
        WKD(gamma=gamma, temperature=1.0, entropy=0.5).apply(
            variables, says(z_s), says(z_t), LABELS
        )
        for gamma in (1.0, 0.0)
    ]
    expected = [1 - np.exp(w[i] @ w[j] - 1) for i, j in zip(ours, theirs, strict=True)]
    np.testing.assert_allclose(values[0] - values[1], expected, rtol=1e-4)


@pytest.mark.parametrize(
    ("field", "value", "remedy"),
    [
        ("gamma", -1.0, ">= 0"),
        ("sharpness", 0.0, "positive"),
        ("entropy", 0.001, "at least 0.02, for float32"),
        ("iterations", 0, "at least 1"),
    ],
)
def test_fields_that_cannot_work_are_refused(field, value, remedy):
    with pytest.raises(ValueError, match=rf"^{field}: {value} cannot work; it must be {remedy}"):
        WKD(**{field: value}).check()


def test_a_ramp_of_gamma_is_checked():
    with pytest.raises(ValueError, match=r"^gamma\.epochs: -1.0 cannot work"):
        WKD(gamma=Ramp(epochs=-1.0)).check()
