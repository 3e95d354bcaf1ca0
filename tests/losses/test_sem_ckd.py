"""Semantic calibration: attention over all pairs of stages."""

import itertools

import jax
import numpy as np
import pytest

from kdjax.experiment.objective import Term
from kdjax.losses import SemCKD
from tests.losses.contract import Spec, contract
from tests.losses.formulas import batch_norm, conv, pool_to_common, unit
from tests.losses.support import example, own_variables, value


def remembered(function):
    """Its last value by name: finite differences move one of many arrays at a time."""
    last = {}

    def call(name, *arrays):
        key = [array.tobytes() for array in arrays]
        if last.get(name, [None])[0] != key:
            last[name] = key, function(*arrays)
        return last[name][1]

    return call


@remembered
def embedding(features, anchors, hidden, hidden_bias, kernel, bias):
    flat = features.reshape(len(features), -1)
    similarity = flat @ flat[: len(anchors)].T
    x = np.maximum(similarity @ hidden[: similarity.shape[1]] + hidden_bias, 0)
    return unit(x @ kernel + bias)


@remembered
def gap(f_s, f_t, first, scale, shift, second, scale2, shift2, last):
    f_s, f_t = pool_to_common(f_s, f_t)
    x = np.maximum(batch_norm(conv(f_s, first), scale, shift), 0)
    x = np.maximum(batch_norm(conv(x, second, pads=(1, 1)), scale2, shift2), 0)
    return np.mean((conv(x, last) - f_t) ** 2, axis=(1, 2, 3))


def formula(loss, student, teacher, labels, own):
    ours = loss.stages or ("stage1", "stage2")
    theirs = loss.teacher_stages or ("stage1", "stage2")
    anchors = np.arange(loss.anchors)

    def embed(name, features):
        layers = (f"{name}_hidden/kernel", f"{name}_hidden/bias", f"{name}/kernel", f"{name}/bias")
        return embedding(name, features, anchors, *(own[layer] for layer in layers))

    def project(a, b):
        parts = ("conv/kernel", "bn/scale", "bn/bias")
        layers = [f"{a}_{b}_{layer}/{part}" for layer in ("in", "middle") for part in parts]
        arrays = [own[layer] for layer in (*layers, f"{a}_{b}_out/kernel")]
        return gap(f"{a}_{b}", student[a], teacher[b], *arrays)

    total = 0.0
    for a in ours:
        query = embed(f"query_{a}", student[a])
        keys = [embed(f"key_{b}", teacher[b]) for b in theirs]
        odds = np.exp([np.sum(query * key, axis=-1) / loss.temperature for key in keys])
        for b, weight in zip(theirs, odds / odds.sum(axis=0), strict=True):
            total += np.mean(weight * project(a, b)) / len(ours)
    return np.array(total)


TestSemCKD = contract(
    Spec(
        SemCKD,
        formula,
        cases={
            "default": SemCKD(),
            "fewer_anchors_than_examples": SemCKD(
                stages=("odd",), teacher_stages=("smaller", "double"), anchors=4, temperature=0.5
            ),
        },
        other_values={
            "stages": ("stage1",),
            "teacher_stages": ("half", "stage2"),
            "anchors": 8,
            "temperature": 0.1,
        },
        training=Term(SemCKD(), 10.0),
    )
)


def test_one_stage_of_the_teacher_has_all_attention():
    """Then it is the projection's gap, whatever queries and keys are."""
    loss = SemCKD(stages=("stage1",), teacher_stages=("half",))
    student, teacher, batch = example()
    params = own_variables(loss)["params"]
    other = jax.tree.map(
        lambda x: -2 * x, {k: v for k, v in params.items() if k.startswith(("query", "key"))}
    )
    np.testing.assert_allclose(
        value(loss, student, teacher, batch, {**params, **other}),
        value(loss, student, teacher, batch, params),
        rtol=1e-6,
    )


@pytest.mark.parametrize("examples", [1, 3, 4, 8])
def test_any_batch_has_the_same_parameters(examples):
    """A run makes them with one example, and only then are batches full."""
    loss = SemCKD(anchors=4)
    rngs = {"params": jax.random.key(0)}
    one, some = (jax.eval_shape(loss.init, rngs, *example(n)) for n in (1, examples))
    assert one == some


def test_all_pairs_are_compared():
    loss = SemCKD(teacher_stages=("half", "double", "odd"))
    pairs = itertools.product(("stage1", "stage2"), ("half", "double", "odd"))
    assert loss.taps(*example()[:2]) == tuple(pairs)


@pytest.mark.parametrize("who", ["student", "teacher"])
def test_an_unknown_stage_is_named(who):
    field = "stages" if who == "student" else "teacher_stages"
    with pytest.raises(ValueError, match=f"SemCKD: the {who} has no stage 'stage9'; it has "):
        SemCKD(**{field: ("stage9",)}).taps(*example()[:2])


def test_what_cannot_work_is_refused():
    with pytest.raises(ValueError, match=r"^anchors: 3 cannot work; it must be at least 4"):
        SemCKD(anchors=3).check()
    with pytest.raises(ValueError, match=r"^temperature: 0.0 cannot work; it must be positive"):
        SemCKD(temperature=0.0).check()
