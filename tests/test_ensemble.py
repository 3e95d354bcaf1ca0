"""Several networks as one: what they say together, and where it is kept."""

import functools
import json
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from kdjax.cli import main
from kdjax.commands.flags import with_named_models
from kdjax.experiment import Experiment, Student, Teacher
from kdjax.experiment.json import from_json, to_json
from kdjax.experiment.rules import validate
from kdjax.models import Ensemble, ResNet, SmallCNN
from kdjax.models.base import VisionModel
from kdjax.students.inherit import inherit
from kdjax.students.recalibrate import recalibrate
from kdjax.training.state import initial_variables
from kdjax.types import Outputs
from tests.losses.formulas import log_softmax
from tests.losses.support import agree, finite_differences, law

ROOT = Path(__file__).parent.parent
SHAPE = (8, 8, 1)
CNN = SmallCNN(widths=(4,), hidden=6, mean=(0.3,), std=(0.4,))
RESNET = ResNet(blocks=(4, 1), widths=(4, 4, 6), mean=(0.1,), std=(0.2,))
BOTH = Ensemble(members=(CNN, RESNET))


class Says(VisionModel):
    """A network that answers with a parameter, whatever it sees."""

    num_classes: int = 5

    def setup(self):
        self.logits = self.param("logits", jax.nn.initializers.zeros, (4, self.num_classes))

    def __call__(self, images, train=False):
        return Outputs(self.logits, {}, self.logits)


@functools.cache
def variables_of(model, seed=0):
    return jax.device_get(initial_variables(model, SHAPE, jax.random.key(seed)))


def images(count=4):
    return np.random.default_rng(0).integers(0, 256, (count, *SHAPE), np.uint8)


def joined(*answers, **fields):
    """The logits of an ensemble whose members answer so."""
    model = Ensemble(num_classes=5, members=(Says(),) * len(answers), **fields)
    params = {f"member{i}": {"logits": jnp.asarray(a)} for i, a in enumerate(answers)}
    return jax.jit(model.apply)({"params": params}, images()).logits


def formula(weighting, weights, answers):
    """The log of the weighted mean of probabilities, an example at a time, in float64."""
    rows = []
    for each in zip(*answers, strict=True):
        p = [np.exp(log_softmax(z)) for z in each]
        v = np.array(weights, np.float64)
        if weighting == "entropy":
            v = v * [np.exp(np.sum(q * np.log(q))) for q in p]
        if weighting == "confidence":
            v = v * [q.max() for q in p]
        rows.append(np.log(sum(a * q for a, q in zip(v / v.sum(), p, strict=True))))
    return np.array(rows)


# --- What they say -----------------------------------------------------------------------------


@pytest.mark.parametrize("weighting", ["fixed", "entropy", "confidence"])
@pytest.mark.parametrize("weights", [(), (0.5, 1.0, 3.0)])
def test_probabilities_are_averaged_and_not_logits(weighting, weights):
    rng = np.random.default_rng(1)
    answers = rng.normal(0, [[[1]], [[3]], [[10]]], (3, 4, 5)).astype(np.float32)
    ours = joined(*answers, weighting=weighting, weights=weights)
    assert ours.dtype == jnp.float32
    agree(ours, formula(weighting, weights or (1, 1, 1), answers.astype(np.float64)), 1e-6)


@pytest.mark.parametrize("weighting", ["fixed", "entropy", "confidence"])
def test_the_gradient_is_the_slope_of_the_formula(weighting):
    rng = np.random.default_rng(2)
    answers = {name: rng.normal(0, 2, (4, 5)) for name in "ab"}
    direction = rng.normal(size=(4, 5))

    def theirs(moved):
        return np.vdot(direction, formula(weighting, (1, 1), list(moved.values())))

    def ours(a, b):
        return jnp.vdot(direction, joined(a, b, weighting=weighting))

    slopes = jax.grad(ours, argnums=(0, 1))(*map(jnp.float32, answers.values()))
    for slope, expected in zip(slopes, finite_differences(theirs, answers).values(), strict=True):
        agree(slope, expected)


@law
@given(
    arrays(np.float32, (3, 4, 5), elements=st.floats(-1e4, 1e4, width=32)),
    st.sampled_from(["fixed", "entropy", "confidence"]),
)
def test_the_answer_is_a_distribution_whatever_the_members_say(answers, weighting):
    ours = joined(*answers, weighting=weighting)
    assert np.isfinite(ours).all()
    np.testing.assert_allclose(jax.nn.logsumexp(ours, axis=-1), 0, atol=1e-5)


def test_alike_members_say_what_each_says():
    z = np.random.default_rng(3).normal(0, 5, (4, 5)).astype(np.float32)
    for weighting in ("fixed", "entropy", "confidence"):
        np.testing.assert_allclose(joined(z, z, weighting=weighting), log_softmax(z), atol=1e-6)


def test_a_surer_member_counts_more():
    sure, unsure = np.eye(5, dtype=np.float32)[:4] * 8, np.zeros((4, 5), np.float32)
    alike = joined(sure, unsure)[0, 0]
    for weighting in ("entropy", "confidence"):
        assert joined(sure, unsure, weighting=weighting)[0, 0] > alike + 0.3


# --- Members are networks of their own ---------------------------------------------------------


def test_each_member_is_what_it_is_alone():
    variables = variables_of(BOTH)
    assert set(variables["params"]) == {"member0", "member1"}
    out = jax.jit(BOTH.apply)(variables, images())
    for i, member in enumerate(BOTH.members):
        own = {collection: tree[f"member{i}"] for collection, tree in variables.items()}
        alone = jax.jit(member.apply)(own, images())
        np.testing.assert_allclose(out.features[f"member{i}"][:, 0, 0], alone.logits, atol=1e-6)
        if i == 0:
            np.testing.assert_allclose(out.embedding, alone.embedding, atol=1e-6)
            np.testing.assert_allclose(out.features["stage1"], alone.features["stage1"], atol=1e-6)


def test_twins_have_weights_of_their_own():
    variables = variables_of(Ensemble(members=(CNN, CNN)))["params"]
    kernels = [variables[name]["conv1"]["kernel"] for name in ("member0", "member1")]
    assert not np.allclose(*kernels)


def test_fields_of_the_ensemble_come_on_top():
    assert BOTH.networks() == BOTH.members
    own = (CNN.clone(sync_batch_norm=False), RESNET.clone(dtype="bfloat16"))
    assert Ensemble(members=own).networks() == own
    top = {"dtype": "bfloat16", "sync_batch_norm": False}
    for network in Ensemble(members=own, **top).networks():
        assert (network.dtype, network.sync_batch_norm) == ("bfloat16", False)
    (network,) = Ensemble(members=(CNN,), mean=(0.1, 0.2), std=(0.5,)).networks()
    np.testing.assert_allclose(network.mean, (0.1 + 0.5 * 0.3, 0.2 + 0.5 * 0.3))
    np.testing.assert_allclose(network.std, (0.2, 0.2))


def test_an_ensemble_is_a_member_like_any_other():
    nested = Ensemble(members=(BOTH, CNN))
    variables = variables_of(nested)
    assert set(variables["params"]["member0"]) == {"member0", "member1"}
    features = jax.jit(nested.apply)(variables, images()).features
    assert list(features) == ["member0", "member1", "stage1"]
    inner = {collection: tree["member0"] for collection, tree in variables.items()}
    expected = jax.jit(BOTH.apply)(inner, images()).logits
    np.testing.assert_allclose(features["member0"][:, 0, 0], expected, atol=1e-6)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"members": ()}, "members: () cannot work; give at least one network."),
        ({"num_classes": 7}, "members.0.num_classes: 10 cannot work; it must be the 7 of the ens"),
        ({"weights": (1.0,)}, "weights: (1.0,) cannot work; give 2 positive numbers, one for each"),
        ({"weights": (1.0, 0.0)}, "weights: (1.0, 0.0) cannot work; give 2 positive numbers"),
    ],
)
def test_what_cannot_work_is_named(fields, message):
    model = BOTH.clone(**fields)
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        variables_of(model)
    with pytest.raises(ValueError, match=f"^{re.escape(f'teacher.model.{message}')}"):
        validate(Experiment(name="x", teacher=Teacher(model=model)))


def test_the_rules_of_a_network_hold_for_members():
    model = BOTH.clone(members=(CNN, RESNET.clone(widths=(4, 4))))
    with pytest.raises(ValueError, match=r"^teacher.model.members.1.widths: \(4, 4\) cannot work"):
        validate(Experiment(name="x", teacher=Teacher(model=model)))


# --- Configs and flags -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "model",
    [BOTH.clone(weights=(0.5, 2.0), weighting="entropy"), Ensemble(members=(BOTH, CNN))],
    ids=["flat", "nested"],
)
def test_json_and_back_is_the_same_value(model):
    experiment = Experiment(name="x", teacher=Teacher(model=model), student=Student(model=model))
    text = to_json(experiment)
    assert from_json(text, Experiment) == experiment
    assert json.loads(text)["teacher"]["model"]["members"][-1]["type"] in ("ResNet", "SmallCNN")


def test_fields_of_members_are_flags(data_directory, capsys):
    preset = str(ROOT / "configs" / "mutual.py")
    flags = ("--teacher.model.members.1.hidden", "17", "--teacher.model.weights", "2", "1")
    where = ("--data.directory", str(data_directory))
    assert main(["show", preset, *flags, *where]) == 0
    out = capsys.readouterr().out
    assert '"hidden": 17' in out
    assert "Ensemble" in out
    with pytest.raises(SystemExit):
        main(["show", preset, "--teacher.model.members.1.hiden", "17"])
    assert "--teacher.model.members.1.hidden" in capsys.readouterr().err


def test_a_network_by_name_follows_the_first_member():
    experiment = Experiment(name="x", teacher=Teacher(model=BOTH))
    named, _ = with_named_models(experiment, ["--student.model", "resnet8"])
    assert (named.student.model.mean, named.student.model.std) == (CNN.mean, CNN.std)


# --- Students cut from it ----------------------------------------------------------------------


def test_a_student_cut_from_an_ensemble_takes_the_blocks_of_every_member():
    student = BOTH.scaled(1.0, 0.5)
    assert student.members == (CNN, RESNET.clone(blocks=(2, 1)))
    theirs = variables_of(BOTH)
    cut = inherit(BOTH, theirs, student, variables_of(student, 1), SHAPE)
    for ours, source in (("block0", "block0"), ("block1", "block2")):
        np.testing.assert_array_equal(
            cut["params"]["member1"][f"stage1_{ours}_conv1"]["kernel"],
            theirs["params"]["member1"][f"stage1_{source}_conv1"]["kernel"],
        )
    half = BOTH.scaled(0.5, 1.0)
    cut = inherit(BOTH, theirs, half, variables_of(half, 1), SHAPE)
    assert jax.tree.structure(cut) == jax.tree.structure(variables_of(half))


def test_statistics_of_members_are_measured_anew():
    variables = variables_of(BOTH)
    measured = recalibrate(BOTH, variables, [images(16)])["batch_stats"]
    for i, member in enumerate(BOTH.members):
        own = {collection: tree[f"member{i}"] for collection, tree in variables.items()}
        expected = recalibrate(member, own, [images(16)])["batch_stats"]
        close = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)  # noqa: E731
        jax.tree.map(close, measured[f"member{i}"], expected)
