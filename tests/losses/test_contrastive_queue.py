"""Contrast with a queue of the teacher's embeddings."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given

from kdjax.experiment.objective import Term
from kdjax.losses import ContrastiveQueue
from tests.losses.contract import Spec, contract
from tests.losses.formulas import unit
from tests.losses.support import KEY, batch_of, embeddings, example, law, own_variables, says


def formula(loss, student, teacher, labels, own):
    def project(embedding, who):
        return unit(embedding @ own[f"project_{who}/kernel"] + own[f"project_{who}/bias"])

    keys, key_labels = teacher["embedding"], labels
    if loss.size:
        seen = own["memory/label"] >= 0
        keys = np.concatenate([keys, own["memory/embedding"][seen]])
        key_labels = np.concatenate([labels, own["memory/label"][seen]])
    v_s, v_k = project(student["embedding"], "student"), project(keys, "teacher")
    total = 0.0
    for i, y in enumerate(labels):
        positive = np.exp(v_s[i] @ v_k[i] / loss.temperature)
        others = np.exp(v_k[key_labels != y] @ v_s[i] / loss.temperature)
        total -= np.log(positive / (positive + others.sum()))
    return np.array(total / len(labels))


TestContrastiveQueue = contract(
    Spec(
        ContrastiveQueue,
        formula,
        cases={
            "default": ContrastiveQueue(),
            "batch_alone": ContrastiveQueue(size=0),
            "short": ContrastiveQueue(size=2, temperature=0.5, width=2),
        },
        other_values={"size": 0, "temperature": 0.2, "width": 64},
        reads=("embedding",),
        training=Term(ContrastiveQueue(size=0, width=4), 0.3),
    )
)


def step(loss, variables):
    return loss.apply(variables, *example(), rngs={"loss": KEY}, mutable=["memory"])[1]["memory"]


@pytest.mark.parametrize("size", [3, 5, 20])
def test_the_newest_are_remembered_and_the_oldest_forgotten(size):
    loss = ContrastiveQueue(size=size)
    _, teacher, batch = example()
    variables = loss.init({"params": KEY}, *example())
    assert (variables["memory"]["label"] == -1).all(), "nothing yet"
    for seen in (1, 2):
        variables = {**variables, "memory": step(loss, variables)}
        labels = np.tile(batch.label, seen)[:size]
        np.testing.assert_array_equal(variables["memory"]["label"][: len(labels)], labels)
        assert (variables["memory"]["label"][len(labels) :] == -1).all()
        rows = np.tile(teacher.embedding, (seen, 1))[:size]
        np.testing.assert_array_equal(variables["memory"]["embedding"][: len(rows)], rows)


def test_an_example_of_the_own_class_is_no_negative():
    student, teacher, batch = example()
    alike = batch._replace(label=jnp.full_like(batch.label, 1))
    loss = ContrastiveQueue(size=0)
    assert loss.apply(own_variables(loss), student, teacher, alike) == 0


@law
@given(embeddings, embeddings)
def test_contrast_is_not_negative(e_s, e_t):
    loss, batch = ContrastiveQueue(size=4, width=2), batch_of([0, 2, 4])
    outputs = says(embedding=e_s), says(embedding=e_t)
    variables = loss.init({"params": KEY}, *outputs, batch)
    total, _ = jax.jit(lambda v: loss.apply(v, *outputs, batch, mutable=["memory"]))(variables)
    assert total >= 0


@pytest.mark.parametrize(
    ("field", "value", "remedy"),
    [("size", -1, "at least 0"), ("temperature", 0.0, "positive"), ("width", 0, "at least 1")],
)
def test_fields_that_cannot_work(field, value, remedy):
    with pytest.raises(ValueError, match=f"^{field}: {value} cannot work; it must be {remedy}"):
        ContrastiveQueue(**{field: value}).check()
