"""Students that answer with their teacher's classifier: what they take over and keep."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax.cli import main
from kdjax.deploy.export import load_exported
from kdjax.evaluation.load import load
from kdjax.experiment import Derive, Teacher
from kdjax.experiment.json import read_json, to_json
from kdjax.experiment.objective import Term
from kdjax.experiment.optim import SGD
from kdjax.experiment.rules import validate
from kdjax.experiment.runs import baseline_run, student_run
from kdjax.jobs.distill import distill
from kdjax.losses import SRRL, CrossEntropy, SimKD
from kdjax.models import (
    Ensemble,
    MobileNetV1,
    MobileNetV2,
    ResNet,
    ReusedClassifier,
    RowLSTM,
    SmallCNN,
)
from kdjax.models.base import VisionModel
from kdjax.models.reused_classifier import reusing
from kdjax.models.stages import last_map
from kdjax.models.summary import parameter_count, variable_shapes
from kdjax.students.first_weights import first_weights
from kdjax.training.parallel import fetch
from kdjax.training.state import initial_variables
from kdjax.types import Outputs
from tests.jobs import learned, on_two
from tests.support import TINY, tiny_experiment, tiny_fit
from tests.training import SHAPE, TEACHER, make_run, random_teacher, train

RESNET = ResNet(blocks=(2, 1), widths=(4, 4, 6), mean=(0.3,), std=(0.4,))
DECAYED = SGD(weight_decay=0.01, decay="all")


def same_bits(a, b):
    jax.tree.map(np.testing.assert_array_equal, dict(a), dict(b))


def variables_of(model, seed=0):
    return jax.device_get(initial_variables(model, SHAPE, jax.random.key(seed)))


def reuses(experiment, **fields):
    student = dataclasses.replace(
        experiment.student, reuse_classifier=True, losses=(Term(SimKD()),), **fields
    )
    return dataclasses.replace(experiment, student=student)


# --- The network -------------------------------------------------------------------------------


def test_it_is_as_wide_and_as_large_as_the_teachers_last_map():
    large = RESNET.clone(widths=(4, 8), blocks=(1,))
    student = reusing(large, RESNET, SHAPE, "test")
    assert (student.width, student.size, student.relu) == (6, (4, 4), True)
    shapes = variable_shapes(student, SHAPE)
    assert shapes["params", "projector_conv2", "kernel"] == (3, 3, 3, 3)
    assert shapes["frozen", "classifier", "kernel"] == (6, 10)
    projected = jax.eval_shape(student.init_with_output, jax.random.key(0), np.zeros((1, *SHAPE)))
    assert projected[0].features["projected"].shape == (1, 4, 4, 6)
    chain = reusing(large, reusing(large, RESNET, SHAPE, "test"), SHAPE, "test")
    assert (chain.width, chain.size, chain.relu) == (6, (4, 4), True)
    mobile = MobileNetV2(blocks=(1,), widths=(4, 6), strides=(1, 1), expansions=(1,), head=9)
    for teacher, width in ((TINY, 16), (mobile, 9), (RowLSTM(hidden=6), 12)):
        student = reusing(large, teacher, SHAPE, "test")
        assert (student.width, student.size, student.relu) == (width, (), False)


def test_layers_before_an_embedding_as_wide_as_a_map_learn():
    """An embedding as wide as the last map need not be its mean."""
    student = reusing(SmallCNN(widths=(2, 4), hidden=4), TINY, SHAPE, "test")
    variables = variables_of(student)
    images = jnp.asarray(np.random.default_rng(0).integers(0, 256, (4, *SHAPE), np.uint8))

    def total(params):
        return student.apply({**variables, "params": params}, images).embedding.sum()

    slope = jax.grad(total)(variables["params"])["network"]["dense"]["kernel"]
    assert np.abs(slope).max() > 1e-3


def test_a_map_is_rectified_as_its_network_does():
    """ReLU6 is no ReLU: what lies above 6 is cut off before the mean."""
    network = MobileNetV1(blocks=(1, 1), widths=(4, 4, 6), strides=(1, 1, 2), std=(0.01,))
    variables = jax.tree.map(lambda x: 20 * x, variables_of(network))
    images = jnp.asarray(np.random.default_rng(0).integers(0, 256, (4, *SHAPE), np.uint8))
    out = network.apply(variables, images)
    assert out.preactivations["stage2"].max() > 6
    np.testing.assert_allclose(last_map(out).mean(axis=(1, 2)), out.embedding, rtol=1e-5)


@pytest.mark.parametrize("relu", [True, False])
def test_the_projector_ends_in_a_relu_where_it_says(relu):
    student = reusing(RESNET, TINY, SHAPE, "test").clone(relu=relu)
    images = jnp.asarray(np.random.default_rng(0).integers(0, 256, (4, *SHAPE), np.uint8))
    out = student.apply(variables_of(student), images)
    assert (out.features["projected"] < 0).any() != relu
    assert ("projected" in out.preactivations) == relu


def test_it_has_its_backbones_pixels_and_no_classifier_of_its_own():
    student = reusing(RESNET.clone(dtype="bfloat16"), TINY, SHAPE, "test")
    assert student.network() == RESNET.clone(dtype="bfloat16")
    layers = {path[2] for path in variable_shapes(student, SHAPE) if path[1] == "network"}
    assert {path[1] for path in variable_shapes(RESNET, SHAPE)} == layers | {"classifier"}


def test_the_frozen_classifier_is_counted():
    student = reusing(RESNET, TINY, SHAPE, "test")
    shapes = variable_shapes(student, SHAPE)
    counted = {path: size for path, size in shapes.items() if path[0] != "batch_stats"}
    assert parameter_count(student, SHAPE) == sum(map(np.prod, counted.values()))
    assert ("frozen", "classifier", "bias") in counted


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"size": (4,)}, r"^size: \(4,\) cannot work; give height and width"),
        ({"factor": 9, "width": 8}, "^factor: 9 cannot work; it must be at most the 8 of width"),
        ({"backbone": Ensemble()}, r"^members: \(\) cannot work"),
    ],
)
def test_a_field_that_cannot_work_is_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        ReusedClassifier(**fields).check()


# --- Before and during training ----------------------------------------------------------------


@pytest.mark.parametrize("teacher", [TINY, RESNET], ids=lambda model: type(model).__name__)
def test_a_derived_student_inherits_the_backbone_and_the_classifier(teacher):
    variables, student = variables_of(teacher, seed=1), reusing(teacher, teacher, SHAPE, "test")
    first = first_weights(
        teacher, variables, student, variables_of(student), Derive(width=1.0), SHAPE, list
    )
    same_bits(first["frozen"]["classifier"], variables["params"]["classifier"])
    own = {name: tree for name, tree in variables["params"].items() if name != "classifier"}
    same_bits(first["params"]["network"], own)
    same_bits(first["batch_stats"]["network"], variables["batch_stats"])
    images = np.random.default_rng(0).integers(0, 256, (4, *SHAPE), np.uint8)
    ours, theirs = (
        jax.jit(m.apply)(v, images) for m, v in ((student, first), (teacher, variables))
    )
    same_bits({k: v for k, v in ours.features.items() if k != "projected"}, theirs.features)
    classifier = variables["params"]["classifier"]
    expected = ours.embedding @ classifier["kernel"] + classifier["bias"]
    np.testing.assert_allclose(ours.logits, expected, rtol=1e-5, atol=1e-6)


def test_a_student_derived_from_such_a_student_keeps_the_classifier():
    teacher = reusing(RESNET, TINY, SHAPE, "test")
    variables = variables_of(teacher)
    variables["frozen"] = {"classifier": variables_of(TINY)["params"]["classifier"]}
    student = teacher.scaled(0.5, 0.5)
    assert student.width == teacher.width
    for how in (None, Derive()):
        first = first_weights(teacher, variables, student, variables_of(student), how, SHAPE, list)
        same_bits(first["frozen"], variables["frozen"])
    assert first["params"]["network"]["stem"]["kernel"].shape[-1] == 2


@pytest.mark.parametrize("backend", ["pmap", "shard_map"])
def test_no_step_on_any_number_of_devices_changes_a_bit_of_the_classifier(backend, digits):
    """Neither weight decay nor the mean over three devices nor the moving average."""
    fit = tiny_fit(batch_size=96, optimizer=DECAYED, ema_decay=0.9)
    student = reusing(RESNET, TEACHER, SHAPE, "test")
    run = make_run(model=student, losses=(Term(SimKD()), Term(CrossEntropy())), fit=fit)
    source, teacher = digits.open("train"), random_teacher()
    state, *_ = train(run, source, teacher, (backend, 3), steps=7)
    frozen = {"classifier": teacher["params"]["classifier"]}
    same_bits(fetch(state.frozen), frozen)
    same_bits(fetch(state.ema)["frozen"], frozen)


# --- The job -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def finished(data_directory, digits, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("reused") / "job"
    fit = {"optimizer": DECAYED, "ema_decay": 0.9, "epochs": 4, "batch_size": 64}
    experiment = on_two(reuses(tiny_experiment(data_directory, **fit)))
    (workdir.parent / "experiment.json").write_text(to_json(experiment))
    distill(experiment, workdir, "kdjax distill")
    return workdir


def test_the_student_ends_with_its_teachers_classifier_bit_for_bit(finished):
    teacher = load(finished / "teacher")
    for checkpoint in ("latest", "best"):
        for weights in ("raw", "ema"):
            student = load(finished / "student", checkpoint, weights)
            same_bits(
                student.variables["frozen"]["classifier"], teacher.variables["params"]["classifier"]
            )
    assert isinstance(student.model, ReusedClassifier)
    assert load(finished / "baseline").model == student.model.network()
    models = read_json(finished / "summary.json")["models"]
    assert models["student"]["parameters"] == parameter_count(student.model, SHAPE)
    assert models["student"]["best"]["agreement"] > 0.2


def test_it_is_exported_with_projector_and_classifier(finished, digits):
    images, _ = digits.open("test").read(np.arange(16))
    student = load(finished / "student")
    answers = load_exported(finished / "export")(images)
    np.testing.assert_allclose(answers, student.logits(images), rtol=1e-4, atol=1e-4)
    names = read_json(finished / "export" / "card.json")["arguments"]
    assert {"frozen/classifier/kernel", "params/projector_conv1/kernel"} <= set(names)


def test_commands_take_it_like_any_network(finished, tmp_path, capsys):
    assert main(["show", str(finished.parent / "experiment.json")]) == 0
    assert "ReusedClassifier" in capsys.readouterr().out
    student = str(finished / "student")
    assert main(["evaluate", student]) == 0
    assert "agreement with teacher" in capsys.readouterr().out
    assert main(["derive", student, "--width", "0.5", "--out", str(tmp_path / "small")]) == 0
    small = load(tmp_path / "small")
    same_bits(small.variables["frozen"], load(student).variables["frozen"])
    assert main(["report", str(finished), "--output", str(tmp_path / "page.html")]) == 0
    capsys.readouterr()
    assert main(["weights", "export", student, "--out", str(tmp_path / "x.safetensors")]) == 1
    assert "ReusedClassifier has no PyTorch counterpart" in capsys.readouterr().err


def test_it_teaches_a_named_student_of_another_family(finished, tiny, tmp_path):
    experiment = on_two(reuses(tiny(), model=RESNET.clone(blocks=(1,), widths=(4, 4))))
    student = dataclasses.replace(experiment.student, losses=(Term(SimKD()), Term(SRRL())))
    experiment = dataclasses.replace(
        experiment,
        teacher=Teacher(run=str(finished / "student")),
        student=student,
        baseline=False,
    )
    theirs = load(finished / "student").variables
    same_bits(learned(experiment, tmp_path)["frozen"], theirs["frozen"])


# --- What cannot be ----------------------------------------------------------------------------


class Headless(VisionModel):
    @nn.compact
    def __call__(self, images, train=False):
        x = self.pixels(images).mean(axis=(1, 2))
        return Outputs(nn.Dense(self.num_classes, name="head")(x), {}, x)


BOTH = Ensemble(members=(TINY, TINY))


@pytest.mark.parametrize(
    ("teacher", "student", "message"),
    [
        (BOTH, TINY, "an Ensemble has several classifiers; give it a single network as teacher"),
        (BOTH, None, "an Ensemble has several classifiers"),
        (TINY, BOTH, "an Ensemble has several classifiers"),
        (Headless(), TINY, "the teacher has no last layer named classifier with kernel and bias"),
    ],
)
def test_one_classifier_must_be_there_to_reuse(teacher, student, message, tiny):
    experiment = reuses(tiny(), model=student)
    with pytest.raises(ValueError, match=rf"^student\.reuse_classifier: {message}"):
        student_run(experiment, teacher, SHAPE, None)


def test_simkd_needs_the_classifier_reused(tiny):
    experiment = reuses(tiny())
    validate(experiment)
    own = dataclasses.replace(experiment.student, reuse_classifier=False)
    message = r"^student\.losses\.0: SimKD .*; set student\.reuse_classifier=True"
    with pytest.raises(ValueError, match=message):
        validate(dataclasses.replace(experiment, student=own))


@pytest.mark.parametrize("role", ["teacher", "student"])
def test_it_is_not_named_but_made(role, tiny):
    part = dataclasses.replace(getattr(tiny(), role), model=ReusedClassifier())
    message = rf"^{role}\.model: a ReusedClassifier is made .*student\.reuse_classifier=True"
    with pytest.raises(ValueError, match=message):
        validate(dataclasses.replace(tiny(), **{role: part}))


def test_the_baseline_has_its_own_classifier(tiny):
    experiment = reuses(tiny())
    derived = SmallCNN(widths=(2, 4), hidden=8, mean=TINY.mean, std=TINY.std)
    assert baseline_run(experiment, TINY, SHAPE).model == derived
    assert student_run(experiment, TINY, SHAPE, None).model == reusing(derived, TINY, SHAPE, "test")
    again = baseline_run(experiment, reusing(TINY, TINY, SHAPE, "test"), SHAPE).model
    assert again == derived
