"""Configs as JSON and back, presets, and the rules of an experiment."""

import copy
import dataclasses
import functools
import json
import os
import re
import subprocess
import sys
import typing

import flax.linen as nn
import pytest

from kdjax.data.augment import (
    Augmentation,
    AutoAugment,
    ColorJitter,
    CutMix,
    Cutout,
    Flip,
    Mixup,
    MixupOrCutMix,
    PadCrop,
    RandAugment,
    RandomErasing,
    RandomResizedCrop,
    ThreeAugment,
    Transform,
)
from kdjax.experiment import (
    BalancedAccuracy,
    Copied,
    Data,
    Derive,
    Descent,
    Experiment,
    Fit,
    LearningRate,
    Measure,
    Metric,
    Phase,
    Processes,
    Published,
    Run,
    Runtime,
    Student,
    Teacher,
    TeacherReference,
)
from kdjax.experiment.json import differences, from_dict, from_json, to_dict, to_json
from kdjax.experiment.objective import Term
from kdjax.experiment.optim import AdamW, Optimizer
from kdjax.experiment.presets import load_preset
from kdjax.experiment.rules import check_views, validate
from kdjax.experiment.schedules import Constant, Schedule, Steps
from kdjax.losses import (
    DKD,
    RLD,
    WSLD,
    AttentionTransfer,
    CrossEntropy,
    DistillationLoss,
    FitNet,
    LogitStandardization,
    Loss,
    Ramp,
    SoftTarget,
)
from kdjax.models import NAMED, Model, ResNet, SmallCNN, VisionModel, ViT

PLAIN = Experiment(name="plain")

FULL = Experiment(
    name="ünusual “name”\n",
    seed=7,
    data=Data(
        name="tfds:cifar100",
        directory="data",
        train="train[:90%]",
        validation="train[90%:]",
        augment=(PadCrop(padding=2), Flip(probability=0.25), Flip()),
    ),
    teacher=Teacher(
        checkpoint="120",
        model=NAMED["resnet20"].clone(num_classes=100, mean=(0.5, 0.4, 0.3), dtype="bfloat16"),
        fit=Fit(
            epochs=2,
            batch_size=64,
            accumulate=4,
            optimizer=AdamW(b1=0.5, decay="all"),
            schedule=Steps(epochs=(1.0, 1.5), warmup_epochs=0.5),
            clip_norm=1.0,
            ema_decay=0.99,
        ),
        losses=(Term(CrossEntropy(label_smoothing=0.1), 2.0),),
    ),
    student=Student(
        model=SmallCNN(num_classes=100, sync_batch_norm=False),
        derive=Derive(width=0.25, inherit=False),
        fit=Fit(schedule=Constant(peak=0.01, warmup_epochs=1)),
        losses=(
            Term(SoftTarget(temperature=2.0), 0.9, Ramp(shape="cosine")),
            Term(
                AttentionTransfer(stages=("stage1",), teacher_stages=("stage2",), variant="paper")
            ),
            Term(FitNet(stage="stage1", teacher_stage="stage3", sync_batch_norm=False), 100.0),
        ),
    ),
    baseline=False,
    metrics=(BalancedAccuracy(),),
    published=Published(student=74.92, rule="best", source="A paper", teacher=75.61),
    runtime=Runtime(devices=2, processes=Processes(coordinator="host:1", count=2, index=1)),
)

RUN = Run(
    role="student",
    seed=3,
    data=FULL.data,
    model=FULL.teacher.model,
    losses=FULL.student.losses,
    fit=FULL.teacher.fit,
    teacher=TeacherReference(run="../teacher", step=12, digest="abc"),
    inherit=Derive(),
    copied=(Copied(run="/a", step=3, digest="def", member=1), Copied(run="/b", step=0, digest="")),
)


def replaced(value, path, new):
    """The same frozen value with another one at a dotted path."""
    if not path:
        return new
    first, _, rest = path.partition(".")
    if isinstance(value, tuple):
        i = int(first)
        return (*value[:i], replaced(value[i], rest, new), *value[i + 1 :])
    changed = {first: replaced(getattr(value, first), rest, new)}
    if isinstance(value, nn.Module):
        return value.clone(**changed)
    return dataclasses.replace(value, **changed)


def at(values, path):
    return functools.reduce(lambda node, key: node[key], path, values)


def levels(value, path=()):
    """The path of every object inside plain JSON values."""
    if isinstance(value, dict):
        yield path
    items = value.items() if isinstance(value, dict) else ()
    items = enumerate(value) if isinstance(value, list) else items
    for key, item in items:
        yield from levels(item, (*path, key))


def spelled(path):
    """As the errors spell it: `Experiment.student.losses[1].loss`."""
    keys = (f"[{key}]" if isinstance(key, int) else f".{key}" for key in path)
    return "Experiment" + "".join(keys)


# --- There and back ----------------------------------------------------------------------------


@pytest.mark.parametrize("config", [PLAIN, FULL, RUN], ids=["plain", "full", "run"])
def test_json_and_back_is_the_same_value(config):
    again = from_json(to_json(config), type(config))
    assert again == config
    assert hash(again) == hash(config)
    assert to_json(again) == to_json(from_json(to_json(again), type(config)))
    assert {type(v) for v in again.data.augment} == {type(v) for v in config.data.augment}


FOR_OTHERS = {VisionModel, DistillationLoss, Descent, LearningRate, Transform, Metric}
"""What stands for classes that are not ours."""


@pytest.mark.parametrize(
    ("union", "path"),
    [
        (Model, "student.model"),
        (Loss, "student.losses.0.loss"),
        (Optimizer, "student.fit.optimizer"),
        (Schedule, "student.fit.schedule"),
        (Augmentation, "data.augment.0"),
        (Measure, "metrics.0"),
    ],
)
def test_every_choice_survives_and_carries_its_type(union, path):
    for kind in set(typing.get_args(union)) - FOR_OTHERS:
        config = replaced(FULL, path, kind())
        values = to_dict(config)
        keys = [int(key) if key.isdecimal() else key for key in path.split(".")]
        own = {f.name for f in dataclasses.fields(kind)} - {"parent", "name"}
        assert set(at(values, keys)) == {"type"} | own
        assert at(values, keys)["type"] == kind.__name__
        assert from_dict(json.loads(json.dumps(values)), Experiment) == config


def test_two_experiments_are_equal_only_if_every_field_is():
    assert copy.deepcopy(FULL) == FULL
    for path, new in (
        ("seed", 8),
        ("data.augment.0.padding", 3),
        ("teacher.model.dtype", "float32"),
        ("student.losses.0.schedule.shape", "linear"),
        ("runtime.processes.count", 3),
    ):
        assert replaced(FULL, path, new) != FULL


def test_fields_left_out_take_their_defaults():
    assert from_dict({"name": "plain"}, Experiment) == PLAIN


def test_a_whole_number_is_a_float_where_one_is_due():
    epochs = from_dict({"name": "plain", "student": {"fit": {"epochs": 3}}}, Experiment)
    assert type(epochs.student.fit.epochs) is float


# --- Strictness --------------------------------------------------------------------------------


@pytest.mark.parametrize("path", list(levels(to_dict(FULL))), ids=spelled)
def test_an_unknown_field_is_named_at_every_level(path):
    values = to_dict(FULL)
    at(values, path)["tempreature"] = 1
    message = f"file.json: unknown field tempreature @ {spelled(path)}"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        from_dict(values, Experiment, "file.json")


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("seed", 1.5, "1.5 is not int"),
        ("seed", "1", "'1' is not int"),
        ("seed", True, "True is not int"),
        ("seed", None, "None is not int"),
        ("name", 3, "3 is not str"),
        ("baseline", 1, "1 is not bool"),
        ("baseline", "false", "'false' is not bool"),
        ("student.fit.epochs", "30", "'30' is not float"),
        ("student.fit.epochs", True, "True is not float"),
        ("student.fit.epochs", float("nan"), "nan is not a finite number"),
        ("student.fit.clip_norm", float("inf"), "inf is not a finite number"),
        ("student.losses.0.weight", float("nan"), "nan is not a finite number"),
        ("teacher.model.mean.1", float("-inf"), "-inf is not a finite number"),
        ("runtime.devices", "all", "'all' is not int"),
        ("teacher.model.dtype", "float16", "float16 not in literal"),
        ("teacher.fit.optimizer.decay", "some", "some not in literal"),
        ("teacher.model.widths.1", "16", "'16' is not int"),
        ("teacher.model.widths", 16, "16 is not a list"),
        ("student.losses.1.loss.stages", "stage1", "'stage1' is not a list"),
        ("data.augment", {}, "{} is not a list"),
        ("data.augment", "", "'' is not a list"),
        ("data", None, "must be an object with the fields of Data"),
        ("student", [], "must be an object with the fields of Student"),
        ("teacher.model", {"type": "ResNext"}, "'ResNext' is none of SmallCNN, ResNet"),
        ("teacher.model", {"num_classes": 10}, "None is none of SmallCNN, ResNet"),
        ("teacher.model", None, "None is none of SmallCNN, ResNet"),
        ("student.model", "resnet20", "'resnet20' is none of SmallCNN, ResNet"),
        ("student.losses.0.loss.type", "KD", "'KD' is none of CrossEntropy, Focal"),
        ("teacher.fit.schedule.type", 3, "3 is none of Cosine, Steps, Constant"),
        ("data.augment.0", "Flip", "'Flip' is none of PadCrop, Flip"),
    ],
)
def test_a_wrong_value_is_refused_with_its_place(path, value, message):
    keys = [int(key) if key.isdecimal() else key for key in path.split(".")]
    values = to_dict(FULL)
    at(values, keys[:-1])[keys[-1]] = value
    place = spelled(keys).removesuffix(".type")
    with pytest.raises(ValueError, match=re.escape(message)) as error:
        from_dict(values, Experiment)
    assert place in str(error.value)


def test_every_problem_is_named_at_once():
    values = {"nam": "x", "seed": "1", "student": {"fit": {"epoch": 3, "batch_size": 0.5}}}
    with pytest.raises(ValueError, match="config: ") as error:
        from_dict(values, Experiment)
    for part in ("unknown field nam", "required field missing @ Experiment.name", "'1' is not int"):
        assert part in str(error.value)
    for part in ("unknown field epoch @ Experiment.student.fit", "0.5 is not int"):
        assert part in str(error.value)


@pytest.mark.parametrize("values", [None, 3, "name", ["name"], True])
def test_something_else_than_an_object_is_refused(values):
    with pytest.raises(ValueError, match="config: must be an object with the fields of Experiment"):
        from_dict(values, Experiment)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.99])
def test_truncated_json_is_named_as_such(share):
    text = to_json(FULL).rstrip()
    with pytest.raises(ValueError, match=r"^run/config.json is not readable JSON: "):
        from_json(text[: int(share * len(text))], Experiment, "run/config.json")


def test_json_may_not_smuggle_in_a_nan():
    text = to_json(PLAIN).replace('"peak": 0.1', '"peak": NaN')
    with pytest.raises(ValueError, match=r"nan is not a finite number @ .*schedule.peak"):
        from_json(text, Experiment)


# --- Differences -------------------------------------------------------------------------------


def test_no_differences_of_a_config_from_itself():
    assert differences(to_dict(FULL), json.loads(to_json(FULL))) == []


def test_every_difference_is_one_line():
    changed = replaced(FULL, "student.fit.epochs", 40.0)
    changed = replaced(changed, "teacher.model.widths", (16, 16, 32, 48))
    changed = replaced(changed, "data.augment", (PadCrop(),))
    changed = replaced(changed, "student.losses.0.loss", CrossEntropy())
    old, new = (json.loads(to_json(config)) for config in (FULL, changed))
    lines = differences(old, new)
    augment = f"data.augment: {old['data']['augment']!r} → {new['data']['augment']!r}"
    assert lines == [
        augment,
        "student.fit.epochs: 30.0 → 40.0",
        "student.losses.0.loss.class_weights: None → []",
        "student.losses.0.loss.label_smoothing: None → 0.0",
        "student.losses.0.loss.temperature: 2.0 → None",
        "student.losses.0.loss.type: 'SoftTarget' → 'CrossEntropy'",
        "teacher.model.widths.3: 64 → 48",
    ]


# --- Presets -----------------------------------------------------------------------------------


def test_a_preset_is_its_config_function(tmp_path):
    path = tmp_path / "small.py"
    path.write_text(
        "from kdjax.experiment import Experiment\n"
        "def config(seed: int = 3) -> Experiment:\n"
        "    return Experiment(name='small', seed=seed)\n"
    )
    assert load_preset(path)() == Experiment(name="small", seed=3)
    assert load_preset(str(path))(seed=4).seed == 4


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("broken.py", "def config(:", "does not run: SyntaxError: "),
        ("raises.py", "import no_such_package", "does not run: ModuleNotFoundError: "),
        ("empty.py", "", "has no function config() that returns an Experiment."),
        ("value.py", "config = 3", "has no function config() that returns an Experiment."),
        ("preset.yaml", "name: x", "is not a Python file."),
    ],
)
def test_a_preset_that_is_none_says_why(tmp_path, name, text, message):
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(ValueError, match=f"^{re.escape(f'preset {path} {message}')}"):
        load_preset(path)


def test_a_missing_preset_lists_its_neighbours(tmp_path):
    (tmp_path / "digits.py").write_text("")
    message = f"preset {tmp_path / 'digit.py'} does not exist; there are {tmp_path / 'digits.py'}."
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        load_preset(tmp_path / "digit.py")
    with pytest.raises(ValueError, match=r"nowhere.py does not exist\.$"):
        load_preset(tmp_path / "no_such_directory" / "nowhere.py")


# --- The rules of an experiment ----------------------------------------------------------------


@pytest.mark.parametrize("config", [PLAIN, FULL], ids=["plain", "full"])
def test_a_good_experiment_passes(config):
    validate(config)


@pytest.mark.parametrize("name", NAMED)
def test_every_named_network_passes(name):
    for path in ("teacher.model", "student.model"):
        validate(replaced(PLAIN, path, NAMED[name]))


def test_a_drop_of_the_rate_comes_before_the_end():
    """Also within a phase, and in no phase that has a schedule of its own."""
    late = Steps(epochs=(10.0, 30.0))
    message = r"schedule.epochs: \(10.0, 30.0\) cannot work; it must be before the end, after 30"
    with pytest.raises(ValueError, match=f"^student.fit.{message}"):
        validate(replaced(PLAIN, "student.fit.schedule", late))
    phased = replaced(PLAIN, "student.fit.phases", (Phase(schedule=late),))
    with pytest.raises(ValueError, match=f"^student.fit.phases.0.{message}"):
        validate(phased)
    unread = replaced(PLAIN, "student.fit.phases", (Phase(schedule=Constant()),))
    validate(replaced(unread, "student.fit.schedule", late))


def test_an_objective_of_no_weight_is_refused():
    """A ramp may give it one."""
    for term in (Term(SoftTarget(), 0.0), Term(SoftTarget(), 1.0, Ramp(start=0.0, stop=0.0))):
        with pytest.raises(ValueError, match=r"^student.losses: all terms have weight 0"):
            validate(replaced(PLAIN, "student.losses", (term,)))
    validate(replaced(PLAIN, "student.losses", (Term(SoftTarget(), 1.0, Ramp()),)))


FITS = [
    ("epochs", 0.0, "positive"),
    ("epochs", float("inf"), "a finite number"),
    ("batch_size", 0, "at least 1"),
    ("accumulate", 0, "a divisor of 128"),
    ("accumulate", 3, "a divisor of 128"),
    ("eval_every", 0.0, "positive"),
    ("eval_every", 31.0, "at most 30, or nothing is validated but the end"),
    ("schedule.warmup_epochs", 31.0, "at most the 30 epochs there are"),
    ("clip_norm", 0.0, "positive, or None"),
    ("ema_decay", 0.0, "in (0, 1), or None"),
    ("ema_decay", 1.0, "in (0, 1), or None"),
    ("schedule.peak", 0.0, "positive"),
    ("schedule.peak", float("nan"), "a finite number"),
    ("schedule.warmup_epochs", -1.0, ">= 0"),
    ("schedule.final", -0.1, "in [0, 1]"),
    ("schedule.final", 1.1, "in [0, 1]"),
    ("optimizer.weight_decay", -1e-4, ">= 0"),
    ("optimizer.momentum", -0.1, "in [0, 1)"),
    ("optimizer.momentum", 1.0, "in [0, 1)"),
]
MODELS = [
    ("num_classes", 1, "at least 2"),
    ("std", (), "positive, one value or one a channel"),
    ("std", (0.2, 0.0, 0.2), "positive, one value or one a channel"),
    ("mean", (), "one value or as many as the 1 of std"),
    ("widths", (), "at least 1"),
    ("widths", (4, 0), "at least 1"),
    ("hidden", 0, "at least 1"),
]
PLAIN_RULES = [
    ("seed", -1, "in [0, 2**32)"),
    ("seed", 2**32, "in [0, 2**32)"),
    ("data.name", "cifar10", "digits, tfds:NAME, folder:DIR or npz:FILE"),
    ("data.name", "tfds:", "digits, tfds:NAME, folder:DIR or npz:FILE"),
    ("data.image_size", (0, 4), "two positive numbers, or None"),
    ("teacher.checkpoint", "bets", "best, latest or a step"),
    *((f"{role}.fit.{field}", *rest) for role in ("teacher", "student") for field, *rest in FITS),
    *((f"teacher.model.{field}", *rest) for field, *rest in MODELS),
    ("teacher.losses", (), "at least one term"),
    ("student.losses", (), "at least one term"),
    ("student.losses.1.weight", -1.0, ">= 0"),
    ("student.losses.0.loss.label_smoothing", 1.0, "in [0, 1)"),
    ("student.losses.0.loss.label_smoothing", -0.1, "in [0, 1)"),
    ("student.losses.1.loss.temperature", 0.0, "positive"),
    ("student.derive.width", 0.0, "in (0, 1]"),
    ("student.derive.width", 1.5, "in (0, 1]"),
    ("student.derive.depth", 0.0, "in (0, 1]"),
    ("student.derive.depth", 1.5, "in (0, 1]"),
    ("student.derive.recalibrate", -1, ">= 0"),
    ("runtime.eval_batch_size", 0, "at least 1"),
    ("runtime.log_every", 0, "at least 1"),
    ("runtime.keep_latest", 0, "at least 1"),
    ("runtime.keep_best", 0, "at least 1"),
    ("runtime.devices", 0, "at least 1, or None"),
]
FULL_RULES = [
    ("data.augment.0.padding", -1, ">= 0"),
    ("data.augment.1.probability", -0.1, "in [0, 1]"),
    ("data.augment.1.probability", 1.1, "in [0, 1]"),
    *((f"student.model.{field}", *rest) for field, *rest in MODELS),
    ("teacher.model.blocks", (1, 0, 1), "at least 1"),
    ("teacher.model.widths", (4, 4, 4), "one value for the stem and one for each of 3 stages"),
    ("teacher.model.mean", (0.5, 0.5), "one value or as many as the 3 of std"),
    ("teacher.fit.schedule.epochs", (1.5, 1.0), "rising, after the warm-up"),
    ("teacher.fit.schedule.epochs", (0.5, 1.0), "rising, after the warm-up"),
    ("teacher.fit.schedule.factor", 0.0, "positive"),
    ("teacher.fit.optimizer.b1", 1.0, "in [0, 1)"),
    ("teacher.fit.optimizer.b2", -0.1, "in [0, 1)"),
    ("teacher.fit.optimizer.eps", 0.0, "positive"),
    ("student.losses.0.schedule.epochs", -1.0, ">= 0"),
    ("student.losses.0.schedule.begin", float("nan"), "a finite number"),
    ("student.losses.1.loss.p", 0.5, "at least 1"),
    ("published.student", 0.7492, "in per cent, above 1 and at most 100"),
    ("published.teacher", 100.5, "in per cent, above 1 and at most 100"),
]
MIXED = replaced(PLAIN, "data.augment", (RandomResizedCrop(), Mixup()))
MIXED_RULES = [
    ("data.augment.0.scale", (0.0, 1.0), "two rising numbers in (0, 1]"),
    ("data.augment.0.scale", (0.5, 0.2), "two rising numbers in (0, 1]"),
    ("data.augment.0.scale", (0.5, 1.2), "two rising numbers in (0, 1]"),
    ("data.augment.0.ratio", (0.0, 1.0), "two rising numbers > 0"),
    ("data.augment.1.alpha", 0.0, "positive"),
    ("data.augment.1.probability", 1.5, "in [0, 1]"),
]
VIEWS = (ColorJitter(), Cutout(), RandAugment(), RandomErasing(), ThreeAugment(), CutMix())
VIEWED = replaced(PLAIN, "data.augment", VIEWS)
VIEW_RULES = [
    ("data.augment.0.brightness", -0.1, ">= 0"),
    ("data.augment.0.contrast", -0.1, ">= 0"),
    ("data.augment.0.saturation", -0.1, ">= 0"),
    ("data.augment.0.hue", 0.6, "in [0, 0.5]"),
    ("data.augment.1.size", 0, "at least 1"),
    ("data.augment.2.num_ops", 0, "at least 1"),
    ("data.augment.2.magnitude", 31, "from 0 to 30"),
    ("data.augment.3.probability", 1.5, "in [0, 1]"),
    ("data.augment.3.scale", (0.5, 1.2), "two rising numbers in (0, 1]"),
    ("data.augment.3.ratio", (2.0, 1.0), "two rising numbers > 0"),
    ("data.augment.3.mean", (0.5, 128.0), "in [0, 1], one value or one a channel"),
    ("data.augment.3.std", (-0.1,), ">= 0, one value or one a channel"),
    ("data.augment.3.std", (), ">= 0, one value or one a channel"),
    ("data.augment.4.sigma", (0.0, 1.0), "two rising numbers > 0"),
    ("data.augment.4.sigma", (2.0, 1.0), "two rising numbers > 0"),
    ("data.augment.4.jitter", -0.1, ">= 0"),
    ("data.augment.5.alpha", 0.0, "positive"),
    ("data.augment.5.probability", -0.5, "in [0, 1]"),
]
EITHER = replaced(PLAIN, "data.augment", (MixupOrCutMix(),))
EITHER_RULES = [
    ("data.augment.0.mixup_alpha", 0.0, "positive"),
    ("data.augment.0.cutmix_alpha", -1.0, "positive"),
    ("data.augment.0.probability", 1.5, "in [0, 1]"),
    ("data.augment.0.switch_probability", -0.5, "in [0, 1]"),
]
DROPPING = replaced(PLAIN, "teacher.model", ViT())
DROPPING_RULES = [
    ("teacher.model.dropout", 1.0, "at least 0 and less than 1"),
    ("teacher.model.drop_path", -0.1, "at least 0 and less than 1"),
]
LOSS = "student.losses.1.loss"
OWN = [
    (LogitStandardization(), "temperature", 0.0, "positive"),
    (DKD(), "temperature", -1.0, "positive"),
    (DKD(), "alpha", -0.5, ">= 0"),
    (DKD(), "beta", -0.5, ">= 0"),
    (WSLD(), "temperature", 0.0, "positive"),
]
FULL_WITH_THREE = replaced(FULL, "teacher.model.std", (0.2, 0.2, 0.2))


@pytest.mark.parametrize(
    ("base", "path", "value", "remedy"),
    [
        *((PLAIN, *rule) for rule in PLAIN_RULES),
        *((FULL_WITH_THREE, *rule) for rule in FULL_RULES),
        *((MIXED, *rule) for rule in MIXED_RULES),
        *((VIEWED, *rule) for rule in VIEW_RULES),
        *((EITHER, *rule) for rule in EITHER_RULES),
        *((DROPPING, *rule) for rule in DROPPING_RULES),
        *((replaced(PLAIN, LOSS, loss), f"{LOSS}.{field}", *rest) for loss, field, *rest in OWN),
    ],
    ids=lambda part: part if isinstance(part, str) else "",
)
def test_a_rule_names_the_field_the_value_and_the_remedy(base, path, value, remedy):
    message = f"{path}: {value!r} cannot work; it must be {remedy}."
    validate(base)
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        validate(replaced(base, path, value))


@pytest.mark.parametrize(
    "mixing", [Mixup(), CutMix(), MixupOrCutMix()], ids=lambda mixing: type(mixing).__name__
)
@pytest.mark.parametrize("loss", [DKD(), WSLD(), RLD()], ids=lambda loss: type(loss).__name__)
def test_a_loss_of_one_label_cannot_be_had_with_mixed_images(loss, mixing):
    names = type(loss).__name__, type(mixing).__name__
    message = "student.losses.1: {} needs one label an image, and {} in data.".format(*names)
    mixed = replaced(PLAIN, "data.augment", (Flip(), mixing))
    validate(mixed)
    validate(replaced(PLAIN, LOSS, loss))
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        validate(replaced(mixed, LOSS, loss))


@pytest.mark.parametrize("second", [Flip(), Mixup(), CutMix(), MixupOrCutMix()])
def test_mixing_comes_last_and_once(second):
    with pytest.raises(ValueError, match=r"^data\.augment\.0: Mixup comes last, and images are "):
        validate(replaced(PLAIN, "data.augment", (Mixup(), second)))


def test_answers_to_mixtures_are_not_kept():
    mixed = replaced(PLAIN, "data.augment", (Flip(), MixupOrCutMix()))
    kept = replaced(mixed, "teacher.cache.directory", "caches/mixed")
    with pytest.raises(ValueError, match=r"^teacher\.cache\.directory: .* out MixupOrCutMix, or"):
        validate(kept)
    validate(replaced(kept, "data.teacher_augment", ()))


def test_a_teachers_own_views_are_not_mixed():
    own = replaced(PLAIN, "data.teacher_augment", (Flip(), CutMix()))
    with pytest.raises(ValueError, match=r"^data\.teacher_augment: .* leave out CutMix, or set"):
        validate(own)
    with pytest.raises(ValueError, match=r"^data\.teacher_augment\.0\.padding: -1 cannot work"):
        validate(replaced(PLAIN, "data.teacher_augment", (PadCrop(padding=-1),)))


@pytest.mark.parametrize(
    ("transform", "shape", "message"),
    [
        (PadCrop(padding=8), (9, 8, 3), "padding: 8 cannot work; it must be at most 7"),
        (Cutout(size=9), (9, 8, 3), "size: 9 cannot work; it must be at most 8"),
        (ColorJitter(), (8, 8, 1), "saturation: 0.4 cannot work; it must be 0 for"),
        (ColorJitter(saturation=0.0, hue=0.1), (8, 8, 1), "hue: 0.1 cannot work; it must be 0"),
        (RandomErasing(mean=(0.1, 0.2, 0.3)), (8, 8, 1), "mean: (0.1, 0.2, 0.3) cannot work; it"),
        (RandomErasing(std=(0.1,) * 3), (8, 8, 1), "std: (0.1, 0.1, 0.1) cannot work; it must"),
        (ThreeAugment(), (8, 8, 4), "channels: 4 cannot work; it must be 1 or 3"),
        (AutoAugment(), (8, 8, 2), "channels: 2 cannot work; it must be 1 or 3"),
    ],
    ids=lambda part: type(part).__name__,
)
@pytest.mark.parametrize("name", ["augment", "teacher_augment"])
def test_views_fit_the_images(transform, shape, message, name):
    data = replaced(PLAIN, f"data.{name}", (Flip(), transform)).data
    check_views(data, (32, 32, 3))
    with pytest.raises(ValueError, match=f"^{re.escape(f'data.{name}.1.{message}')}"):
        check_views(data, shape)


def test_a_teacher_cannot_have_a_teacher():
    message = "teacher.losses.1: SoftTarget needs a teacher, .* use it in student.losses."
    losses = (Term(CrossEntropy()), Term(SoftTarget()))
    with pytest.raises(ValueError, match=message):
        validate(replaced(PLAIN, "teacher.losses", losses))


def test_a_number_that_moves_survives_as_such():
    moving = replaced(PLAIN, "student.losses.1.loss.temperature", Ramp(start=8.0, stop=4.0))
    again = from_json(to_json(moving), Experiment)
    assert again == moving
    with pytest.raises(
        ValueError, match=r"losses\.1\.loss\.temperature: 0.0 cannot work|temperature"
    ):
        validate(replaced(PLAIN, "student.losses.1.loss.temperature", Ramp(start=0.0, stop=4.0)))


def test_rules_for_parts_that_are_not_used_do_not_apply():
    named = replaced(replaced(PLAIN, "teacher.run", "runs/x"), "teacher.fit.epochs", 0.0)
    validate(replaced(named, "teacher.model", ResNet(blocks=(1, 1), widths=(1,))))
    validate(replaced(FULL, "student.derive.width", 7.0))


def test_validation_touches_no_device():
    program = (
        "from kdjax.experiment import Experiment\n"
        "from kdjax.experiment.rules import validate\n"
        "from kdjax.experiment.json import from_json, to_json\n"
        "validate(from_json(to_json(Experiment(name='x')), Experiment))\n"
        "import jax\n"
        "try:\n"
        "    jax.devices()\n"
        "except RuntimeError:\n"
        "    print('no device')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "JAX_PLATFORMS": "no_such_platform"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "no device\n"), done.stderr
