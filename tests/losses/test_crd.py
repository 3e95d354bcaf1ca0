"""Contrastive representation distillation: a bank by example, and negatives in expectation."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given

from kdjax.experiment.objective import Term
from kdjax.losses import CRD
from kdjax.losses.crd import last_of_each
from tests.losses.contract import Spec, contract
from tests.losses.formulas import unit
from tests.losses.support import (
    EXAMPLES,
    KEY,
    SPLIT,
    agree,
    as_float64,
    batch_of,
    embeddings,
    example,
    finite_differences,
    flat_float64,
    law,
    own_variables,
    says,
    value,
)


def projections(student, teacher, own):
    return [
        unit(out["embedding"] @ own[f"project_{who}/kernel"] + own[f"project_{who}/bias"])
        for who, out in (("student", student), ("teacher", teacher))
    ]


def halves(loss, student, teacher, own):
    """Embeddings, the bank of the other side and `Z` of either half."""
    v_s, v_t = projections(student, teacher, own)
    bank_s, bank_t = own["memory/bank"]
    z_t, z_s = np.exp(own["memory/log_z"]) * len(bank_s)
    return (v_s, bank_t, z_s), (v_t, bank_s, z_t)


def log_of_noise(loss, v, bank, z):
    """Of each row: logarithm of how likely a drawn one is no positive, eq. 18 of the paper."""
    chance = np.exp(bank @ v / loss.temperature) / z
    noise = loss.negatives / len(bank)
    return np.log(chance / (chance + noise)), np.log(noise / (chance + noise))


def formula(loss, student, teacher, labels, own):
    seen, rows = own["memory/label"], np.arange(len(own["memory/label"]))
    if loss.rows:
        key = loss.bind({}, rngs={"loss": KEY}).make_rng("loss")
        rows = np.asarray(jax.random.randint(key, (loss.rows,), 0, len(seen)))
    total = 0.0
    for anchors, bank, z in halves(loss, student, teacher, own):
        for i, (v, y) in enumerate(zip(anchors, labels, strict=True)):
            positive, negative = log_of_noise(loss, v, bank, z)
            others = [k for k in rows if seen[k] not in (-1, y)]
            total -= positive[i]
            if others:
                total -= loss.negatives * np.mean(negative[others])
    return np.array(total / len(labels))


TestCRD = contract(
    Spec(
        CRD,
        formula,
        cases={
            "default": CRD(),
            "few": CRD(negatives=3, temperature=0.5, width=2),
            "some_rows": CRD(rows=7, examples=12),
        },
        other_values={
            "negatives": 100,
            "temperature": 0.1,
            "momentum": 0.9,
            "width": 64,
            "examples": 12,
            "rows": 4,
        },
        reads=("embedding",),
        training=Term(CRD(negatives=1, width=4), 0.3),  # no row is a positive before epoch two
        every_day=True,
    )
)


LOSS = CRD().for_examples(SPLIT)


@functools.partial(jax.jit, static_argnums=0)
def step(loss, variables, student, teacher, batch):
    """The value, and the variables after it."""
    rngs = {"loss": KEY}
    total, changed = loss.apply(variables, student, teacher, batch, rngs=rngs, mutable=["memory"])
    return total, {**variables, **changed}


def fresh(loss):
    return {**own_variables(loss), **loss.init({"params": KEY, "loss": KEY}, *example())}


def remembered(variables):
    return flat_float64(variables["memory"], "memory/")


def test_the_first_batch_sets_the_constants_and_has_no_negatives():
    student, teacher, batch = example()
    variables = fresh(LOSS)
    s, t, params = as_float64(student), as_float64(teacher), flat_float64(variables["params"])
    total, after = step(LOSS, variables, student, teacher, batch)
    v_s, v_t = projections(s, t, params)
    bank = remembered(variables)["memory/bank"]
    scores = [np.exp(v @ rows.T / LOSS.temperature) for v, rows in ((v_t, bank[0]), (v_s, bank[1]))]
    log_z = np.log([score.mean() for score in scores])
    agree(remembered(after)["memory/log_z"], log_z)
    own = {**params, **remembered(variables), "memory/log_z": log_z}
    agree(total, formula(LOSS, s, t, np.asarray(batch.label), own))
    slope = jax.grad(lambda s: step(LOSS, variables, s, teacher, batch)[0])(student)
    measured = finite_differences(
        lambda moved: formula(LOSS, {**s, **moved}, t, np.asarray(batch.label), own),
        {"embedding": s["embedding"]},
    )
    agree(slope.embedding, measured["embedding"])


@pytest.mark.parametrize("momentum", [0.5, 0.9])
def test_the_bank_remembers_after_the_step(momentum):
    student, teacher, batch = example()
    batch = batch._replace(index=jnp.array([7, 0, 3, 5]))
    before = own_variables(LOSS)
    _, after = step(LOSS.clone(momentum=momentum), before, student, teacher, batch)
    new = projections(as_float64(student), as_float64(teacher), flat_float64(before["params"]))
    expected, seen = remembered(before)["memory/bank"], remembered(before)["memory/label"]
    old = expected[:, batch.index]
    expected[:, batch.index] = unit(momentum * old + (1 - momentum) * np.stack(new))
    seen[np.asarray(batch.index)] = batch.label
    agree(remembered(after)["memory/bank"], expected)
    np.testing.assert_array_equal(remembered(after)["memory/label"], seen)
    assert seen[9] == -1, "not every row is seen yet"
    assert remembered(after)["memory/log_z"].tolist() == remembered(before)["memory/log_z"].tolist()


def test_the_last_counts_where_an_example_occurs_twice():
    student, teacher, batch = example()
    twice = batch._replace(index=jnp.array([4, 2, 4, 4]), label=jnp.array([1, 2, 1, 1]))
    once = jax.tree.map(lambda x: x[jnp.array([1, 3])], (student, teacher, twice))
    _, after = step(LOSS, own_variables(LOSS), student, teacher, twice)
    _, expected = step(LOSS, own_variables(LOSS), *once)
    agree(remembered(after)["memory/bank"], remembered(expected)["memory/bank"])


def test_an_example_of_the_own_class_is_no_negative():
    student, teacher, batch = example()
    alike = batch._replace(label=jnp.zeros(EXAMPLES, jnp.int32))
    variables = own_variables(LOSS)
    memory = {**variables["memory"], "label": jnp.zeros(SPLIT, jnp.int32)}
    total, _ = step(LOSS, {**variables, "memory": memory}, student, teacher, alike)
    memory["label"] = jnp.full(SPLIT, -1, jnp.int32).at[9].set(0)
    alone, _ = step(LOSS, {**variables, "memory": memory}, student, teacher, alike)
    agree(total, alone)


def test_drawing_negatives_tends_to_their_expectation():
    """As the authors draw them: `K` rows of other classes, anew for each example."""
    student, teacher, batch = example()
    variables = own_variables(LOSS)
    ours = value(LOSS, student, teacher, batch)
    own = {**flat_float64(variables["params"]), **remembered(variables)}
    seen, rng, errors = own["memory/label"], np.random.default_rng(0), []
    for draws in (10, 1000):
        total = 0.0
        for anchors, bank, z in halves(LOSS, as_float64(student), as_float64(teacher), own):
            for i, (v, y) in enumerate(zip(anchors, np.asarray(batch.label), strict=True)):
                positive, negative = log_of_noise(LOSS, v, bank, z)
                others = np.flatnonzero((seen != -1) & (seen != y))
                drawn = rng.choice(others, (draws, LOSS.negatives))
                total -= (positive[i] + negative[drawn].sum(axis=1).mean()) / len(anchors)
        errors.append(abs(total - ours) / ours)
    assert errors[1] < 2e-4
    assert errors[1] < errors[0]


def test_some_rows_tend_to_all():
    data = example()
    loss = CRD(rows=2000).for_examples(SPLIT)

    def total(key):
        rngs = {"loss": key}
        return loss.apply(own_variables(LOSS), *data, rngs=rngs, mutable=["memory"])[0]

    drawn = jax.jit(jax.vmap(total))(jax.random.split(jax.random.key(0), 100))
    assert drawn.std() > 0
    np.testing.assert_allclose(drawn.mean(), value(LOSS, *data), rtol=1e-2)


@law
@given(embeddings, embeddings)
def test_crd_is_not_negative(e_s, e_t):
    batch = batch_of([0, 2, 4])
    loss = CRD(examples=SPLIT, width=2)
    variables = loss.init({"params": KEY}, says(embedding=e_s), says(embedding=e_t), batch)
    for _ in range(2):
        total, variables = step(loss, variables, says(embedding=e_s), says(embedding=e_t), batch)
        assert total >= 0


def test_the_bank_has_a_row_for_each_example():
    assert CRD().for_examples(50).examples == 50
    assert CRD(examples=60).for_examples(50).examples == 60
    with pytest.raises(ValueError, match=r"^examples: 40 cannot work; it must be 0 or at least 50"):
        CRD(examples=40).for_examples(50)
    with pytest.raises(ValueError, match=r"^examples: 0 cannot work; it must be set"):
        CRD().init({"params": KEY}, *example())


@pytest.mark.parametrize(
    ("field", "value", "remedy"),
    [
        ("negatives", 0, "at least 1"),
        ("temperature", 0.0, "positive"),
        ("momentum", 1.0, r"in \[0, 1\)"),
        ("width", 0, "at least 1"),
        ("examples", -1, "at least 0"),
        ("rows", 0, "at least 1"),
    ],
)
def test_fields_that_cannot_work(field, value, remedy):
    with pytest.raises(ValueError, match=f"^{field}: {value} cannot work; it must be {remedy}"):
        CRD(**{field: value}).check()


def test_rows_that_are_written_twice_are_written_alike():
    """Which of two writes to a place wins is not defined on every device."""
    assert last_of_each(jnp.array([4, 2, 4, 4, 2]), 6).tolist() == [3, 4, 3, 3, 4]
