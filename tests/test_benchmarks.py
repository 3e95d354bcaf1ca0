"""The presets of the literature's tables build; losses fit what their cost is measured with."""

import functools
import typing
from pathlib import Path

import numpy as np
import pytest

from benchmarks import losses as costs
from kdjax.data.augment import Mixup
from kdjax.experiment.objective import Term, for_examples
from kdjax.experiment.optim import SGD
from kdjax.experiment.presets import experiment_of, load_preset
from kdjax.experiment.rules import validate
from kdjax.experiment.runs import baseline_run, student_run
from kdjax.experiment.schedules import Constant
from kdjax.losses import CrossEntropy, Loss, SimKD, SoftTarget
from kdjax.models import NAMED, ReusedClassifier
from kdjax.models.summary import output_shapes, parameter_count
from kdjax.training.beginning import shapes
from kdjax.training.parts import paths
from kdjax.training.recipe import Recipe
from kdjax.training.state import adapter_shapes

ROOT = Path(__file__).parent.parent

CIFAR100, IMAGENET, PATIENT = (
    str(ROOT / "configs" / f"{name}.py") for name in ("cifar100", "imagenet", "patient")
)
table = load_preset(CIFAR100).__globals__
RECIPES = load_preset(IMAGENET).__globals__["RECIPES"]
PAIRS, METHODS = table["PAIRS"], table["METHODS"]

PARAMETERS = {
    "resnet20": 278_324,
    "resnet32": 472_756,
    "resnet56": 861_620,
    "resnet110": 1_736_564,
    "resnet8x4": 1_233_540,
    "resnet32x4": 7_433_860,
    "resnet50_cifar": 23_705_252,
    "wrn_16_2": 703_284,
    "wrn_40_1": 569_780,
    "wrn_40_2": 2_255_156,
    "vgg8": 3_965_028,
    "vgg13": 9_462_180,
    "mobilenet_v2_half": 812_836,
    "shuffle_v1": 949_258,
    "shuffle_v2": 1_355_528,
}
SOME_CELLS = sorted(
    {(pair, method) for pair in PAIRS for method in ("fitnet", "simkd")}
    | {(pair, method) for pair in ("vgg13-vgg8", "wrn_40_2-shuffle_v1") for method in METHODS}
)
LIGHT = {
    *((pair, "fitnet") for pair in PAIRS if "resnet110" not in pair),  # as wide as resnet56
    *(("vgg13-vgg8", method) for method in METHODS),
    *(("wrn_40_2-shuffle_v1", method) for method in ("fsp", "kdsvd", "simkd", "reviewkd", "srrl")),
    ("resnet50_cifar-mobilenet_v2_half", "simkd"),
}
"""Every method, every shape of a pair, and both where they depend on each other."""


UNEQUAL = {"wrn_40_2-wrn_40_1", *PAIRS[7:]}
"""Pairs whose stages are not of equal widths."""


@functools.cache
def cell(pair, method, **arguments):
    own = [text for name, value in arguments.items() for text in (f"--{name}", str(value))]
    experiment, rest, _ = experiment_of(CIFAR100, ["--pair", pair, "--method", method, *own])
    assert rest == []
    return experiment


@pytest.mark.parametrize("pair", PAIRS)
def test_every_cell_obeys_the_rules(pair):
    names = {cell(pair, method).name for method in METHODS}
    assert len(names) == len(METHODS)
    for method in METHODS:
        validate(cell(pair, method))


def test_the_light_cells_are_cells():
    assert set(SOME_CELLS) >= LIGHT


@pytest.mark.parametrize(
    ("pair", "method"),
    [
        pytest.param(*cell, marks=() if cell in LIGHT else pytest.mark.slow, id="-".join(cell))
        for cell in SOME_CELLS
    ],
)
def test_the_losses_of_a_cell_fit_its_networks(pair, method):
    """What its losses compare, and what its phases train, is there, its student alone included."""
    experiment = cell(pair, method)
    teacher = experiment.teacher.model
    runs = [
        (student_run(experiment, teacher, (32, 32, 3), None), teacher),
        (baseline_run(experiment, teacher, (32, 32, 3)), None),
    ]

    def make():
        for run, teaching in runs if experiment.student.fit.phases else runs[:1]:
            recipe = Recipe.of(run, teaching, 50_000)
            params = shapes(recipe, (32, 32, 3)).params
            for phase in run.fit.phases:
                phase.check_paths(paths(params))

    if method in ("fsp", "kdsvd") and pair in UNEQUAL:
        with pytest.raises(ValueError, match="equal widths"):
            make()
    else:
        make()


def test_mobilenet_is_looked_at_after_the_stages_of_the_benchmark():
    experiment = cell("resnet50_cifar-mobilenet_v2_half", "at")
    models = (experiment.student.model, experiment.teacher.model)
    shapes = [output_shapes(model, (32, 32, 3)) for model in models]
    taps = experiment.student.losses[1].loss.taps(*shapes)
    sizes = [
        tuple(s.features[n].shape[2:] for s, n in zip(shapes, tap, strict=True)) for tap in taps
    ]
    # Width and channels; RepDistiller's f1 to f4.
    assert sizes == [
        ((16, 12), (32, 256)),
        ((8, 16), (16, 512)),
        ((4, 48), (8, 1024)),
        ((2, 160), (4, 2048)),
    ]


def test_a_student_of_simkd_is_its_network_with_the_teachers_classifier():
    experiment = cell("resnet32x4-resnet8x4", "simkd")
    assert experiment.student.losses == (Term(SimKD(), 1.0),)
    teacher, shape = experiment.teacher.model, (32, 32, 3)
    student = student_run(experiment, teacher, shape, None).model
    own = baseline_run(experiment, teacher, shape).model
    assert student == ReusedClassifier(
        num_classes=100, mean=own.mean, std=own.std, backbone=own, width=256, size=(8, 8)
    )
    assert own == experiment.student.model
    # 256 → 128 → 128 → 256 channels with batch norm; both classifiers read 256 numbers.
    projector = 2 * 256 * 128 + 9 * 128 * 128 + 2 * (128 + 128 + 256)
    assert parameter_count(student, shape) == PARAMETERS["resnet8x4"] + projector
    assert not any(cell(PAIRS[0], m).student.reuse_classifier for m in METHODS if m != "simkd")


@pytest.mark.parametrize("name", PARAMETERS)
def test_the_networks_are_those_of_the_benchmark(name):
    assert parameter_count(table["model"](name), (32, 32, 3)) == PARAMETERS[name]


def test_no_pair_has_another_network():
    assert {name for pair in PAIRS for name in pair.split("-")} == set(PARAMETERS)
    for pair in PAIRS:
        experiment, (teacher, student) = cell(pair, "kd"), pair.split("-")
        for model, name in (
            (experiment.teacher.model, teacher),
            (experiment.student.model, student),
        ):
            assert type(model) is type(NAMED[name])
            assert (model.num_classes, model.mean[0], model.std[2]) == (100, 0.5071, 0.2761)


@pytest.mark.parametrize("pair", PAIRS)
def test_the_protocol(pair):
    experiment = cell(pair, "kd")
    light = {"mobilenet_v2_half", "shuffle_v1", "shuffle_v2"}
    for fit, rate in (
        (experiment.teacher.fit, 0.05),
        (experiment.student.fit, 0.01 if pair.split("-")[1] in light else 0.05),
    ):
        assert (fit.epochs, fit.batch_size, fit.schedule.peak) == (240, 64, rate)
        assert fit.optimizer == SGD(momentum=0.9, nesterov=False, weight_decay=5e-4, decay="all")
        per_epoch = 50_000 / 64
        follow = fit.schedule.schedule(per_epoch, round(240 * per_epoch))
        rates = [float(follow(round((epoch + 0.5) * per_epoch))) for epoch in (149, 150, 180, 210)]
        np.testing.assert_allclose(rates, [rate, rate / 10, rate / 100, rate / 1000], rtol=1e-5)
    assert experiment.teacher.checkpoint == "latest"
    assert experiment.data.train == "train"


@pytest.mark.parametrize("method", ["ab", "ft", "fsp"])
def test_a_method_of_two_stages_has_a_phase_before_the_protocol(method):
    """RepDistiller's `pretrain.py`: 30 epochs at a constant rate, of the paraphraser or of what
    lies below the classifier, and then the protocol with a fresh optimizer."""
    student = cell("wrn_40_2-wrn_16_2", method).student
    first, protocol = student.fit.phases
    assert (student.fit.epochs, first.epochs, protocol.epochs) == (270, 30, None)
    assert protocol.schedule.epochs == (150, 180, 210)
    assert first.schedule == Constant(peak=0.01 if method == "ft" else 0.05)
    assert [term.weight for term in first.losses] == [1.0]
    moved = {path: first.trains(path) for path in (
        "student/stage1_block0_conv1/kernel", "student/classifier/kernel", "student/final_bn/scale",
        "adapters/ft/paraphraser/conv0/kernel", "adapters/ft/translator/conv0/kernel",
    )}  # fmt: skip
    if method == "ft":
        assert list(moved.values()) == [False, False, False, True, False]
        assert not protocol.trains("adapters/ft/paraphraser/conv0/kernel")
        assert protocol.trains("adapters/ft/translator/conv0/kernel")
        assert [term.weight for term in student.losses] == [1.0, 200.0]
    else:
        assert list(moved.values())[:3] == [True, False, False]
        assert student.losses == (Term(CrossEntropy()),)
    alone = baseline_run(cell("wrn_40_2-wrn_16_2", method), NAMED["wrn_40_2"], (32, 32, 3)).fit
    assert (alone.epochs, [p.schedule.epochs for p in alone.phases]) == (240, [(150, 180, 210)])


def test_a_shorter_protocol_is_the_whole_in_proportion():
    experiment = cell("resnet56-resnet20", "ft", length=24)
    first, protocol = experiment.student.fit.phases
    assert experiment.teacher.fit.schedule.epochs == pytest.approx((15, 18, 21))
    assert (experiment.student.fit.epochs, first.epochs) == pytest.approx((27, 3))
    assert protocol.schedule.epochs == pytest.approx((15, 18, 21))
    assert cell("resnet56-resnet20", "dkd", length=24).student.losses[1].schedule.epochs == 2
    assert experiment.published is None
    validate(experiment)


def test_weights_that_depend_on_the_pair():
    def dkd(pair):
        return cell(pair, "dkd").student.losses[1].loss.beta

    assert dkd("resnet56-resnet20") == dkd("resnet110-resnet32") == 2.0
    assert dkd("wrn_40_2-wrn_16_2") == dkd("vgg13-vgg8") == dkd("vgg13-mobilenet_v2_half") == 6.0
    assert dkd("resnet32x4-resnet8x4") == dkd("wrn_40_2-shuffle_v1") == 8.0
    review = [cell(pair, "reviewkd").student.losses[1] for pair in PAIRS]
    weights = dict(zip(PAIRS, (term.weight for term in review), strict=True))
    assert weights["resnet56-resnet20"] == 0.6
    assert weights["resnet110-resnet32"] == 1.0
    assert weights["resnet32x4-shuffle_v2"] == 8.0
    assert weights["wrn_40_2-wrn_16_2"] == weights["wrn_40_2-shuffle_v1"] == 5.0
    moved = [
        cell(pair, "wkd").student.losses[1].loss
        for pair in ("resnet32x4-resnet8x4", "wrn_40_2-shuffle_v1")
    ]
    assert [(loss.gamma.start, loss.temperature) for loss in moved] == [(600.0, 8.0), (200.0, 6.0)]
    assert cell("vgg13-vgg8", "ls").student.losses[1].loss.temperature == 3.0
    assert cell("wrn_40_2-wrn_40_1", "ls").student.losses[1].loss.temperature == 2.0


@pytest.mark.parametrize(
    ("pair", "method", "teacher", "baseline", "student", "rule"),
    [
        ("wrn_40_2-wrn_16_2", "kd", 75.61, 73.26, 74.92, "last"),
        ("wrn_40_2-wrn_40_1", "at", 75.61, 71.98, 72.77, "last"),
        ("resnet56-resnet20", "kd", 72.34, 69.06, 70.66, "last"),
        ("resnet110-resnet20", "dkd", 74.31, 69.06, 71.06, "best"),
        ("resnet110-resnet32", "dkd", 74.31, 71.14, 74.11, "best"),
        ("resnet32x4-resnet8x4", "ls", 79.42, 72.50, 76.62, "best"),
        ("resnet32x4-resnet8x4", "simkd", 79.42, None, 78.08, "best"),
        ("vgg13-vgg8", "crd+kd", 74.64, 70.36, 74.29, "last"),
        ("resnet32x4-shuffle_v2", "reviewkd", 79.42, 71.82, 77.78, "best"),
        ("vgg13-vgg8", "ttm", 74.64, 70.36, 74.33, "best"),
        ("wrn_40_2-shuffle_v1", "wkd", 75.61, 70.50, 76.72, "best"),
        ("vgg13-vgg8", "fitnet", 74.64, 70.36, 71.02, "last"),
        ("vgg13-mobilenet_v2_half", "kd", 74.64, 64.60, 67.37, "last"),
        ("resnet50_cifar-mobilenet_v2_half", "kd", 79.34, 64.60, 67.35, "last"),
        ("resnet50_cifar-vgg8", "at", 79.34, 70.36, 71.84, "last"),
        ("resnet32x4-shuffle_v1", "dkd", 79.42, 70.50, 76.45, "best"),
        ("resnet32x4-shuffle_v2", "kd", 79.42, 71.82, 74.45, "last"),
        ("wrn_40_2-shuffle_v1", "kd", 75.61, 70.50, 74.83, "last"),
    ],
)
def test_what_was_published(pair, method, teacher, baseline, student, rule):
    found = cell(pair, method).published
    assert (found.teacher, found.baseline, found.student) == (teacher, baseline, student)
    assert found.rule == rule
    assert "arXiv:" in found.source


def test_a_cell_that_nobody_published_has_nothing():
    assert cell("resnet50_cifar-vgg8", "dkd").published is None


def test_every_row_of_the_table_has_a_number_or_a_dash_for_each_pair():
    for line in table["TABLE"].strip().splitlines()[2:]:
        name, *cells, source = line.split()
        assert len(cells) == len(PAIRS), name
        assert source in table["SOURCES"]
        assert all(cell == "-" or 50 < float(cell) < 80 for cell in cells)


# --- ImageNet ----------------------------------------------------------------------------------


@pytest.mark.parametrize("method", RECIPES)
def test_the_recipes_for_imagenet(method):
    experiment, _, _ = experiment_of(IMAGENET, ["--method", method])
    validate(experiment)
    student, teacher = experiment.student, experiment.teacher
    terms = for_examples(student.losses, 1_281_167)
    adapter_shapes(terms, student.model, teacher.model, (224, 224, 3))
    fit = student.fit
    assert (fit.epochs, fit.batch_size, fit.schedule.peak) == (100, 512, 0.2)
    assert (fit.optimizer.weight_decay, fit.optimizer.decay) == (1e-4, "all")
    assert (experiment.published.teacher, experiment.published.baseline) == (73.31, 69.76)
    assert 70 < experiment.published.student < 73


# --- Patient and consistent --------------------------------------------------------------------


@pytest.mark.parametrize("data", ["imagenet", "digits"])
def test_the_patient_recipe_reads_no_label_and_mixes_every_image(data):
    experiment, _, _ = experiment_of(PATIENT, ["--data", data])
    validate(experiment)
    assert experiment.data.name == ("digits" if data == "digits" else "tfds:imagenet2012")
    assert experiment.student.losses == (Term(SoftTarget(temperature=1.0)),)
    assert experiment.data.augment[-1] == Mixup(alpha=1.0, probability=1.0)


def test_the_patient_recipe_is_that_of_the_paper():
    experiment, _, _ = experiment_of(PATIENT, [])
    fit = experiment.student.fit
    assert (fit.epochs, fit.batch_size, fit.clip_norm) == (1200, 4096, 1.0)
    steps_per_epoch = 1_281_167 * 0.98 / 4096
    rate = fit.schedule.schedule(steps_per_epoch, round(1200 * steps_per_epoch))
    rates = [float(rate(step)) for step in (2500, 5000)]
    np.testing.assert_allclose(rates, [0.015, 0.03], rtol=1e-3)
    # Decay is times the rate here, and was times the share of its peak in the authors' code.
    assert fit.optimizer.weight_decay * 0.03 == pytest.approx(3e-4)
    assert (experiment.published.student, experiment.published.teacher) == (82.8, 83.0)


@pytest.mark.parametrize("kind", typing.get_args(Loss)[:-1], ids=lambda kind: kind.__name__)
def test_the_cost_of_every_loss_is_measured_in_a_student_that_it_fits(kind):
    student = costs.OTHER_STUDENTS.get(kind, costs.STUDENT)
    (term,) = for_examples((Term(kind()),), costs.EXAMPLES)
    adapter_shapes((term,), student, costs.TEACHER, costs.SHAPE)
