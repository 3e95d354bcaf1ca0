"""Students cut from a run by share, by budget and by several notions of importance."""

import dataclasses
import re
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax import load
from kdjax.cli import main
from kdjax.data.pipeline import first_batches
from kdjax.evaluation.load import Loaded
from kdjax.experiment import Derive
from kdjax.experiment.rules import validate
from kdjax.jobs.derive import derive_run
from kdjax.models import NAMED, ResNet, SmallCNN
from kdjax.models.summary import flops, parameter_count
from kdjax.students.derive import derive_within
from kdjax.students.first_weights import first_weights
from kdjax.students.gradients import loss_gradients
from kdjax.training.state import initial_variables
from tests.support import TINY, tiny_run
from tests.test_loop import run_it

SHAPE = (32, 32, 3)


FLAT = {"resnet20": (1, 1, 1), "wrn_16_2": (1, 1, 1), "shuffle_v2": (1, 1, 1)}
"""A block a stage: how wide a network becomes does not hang on its depth."""
BUDGETS = [
    ("vgg8", 0.9, parameter_count),
    ("wrn_16_2", 0.5, parameter_count),
    ("shuffle_v2", 0.25, flops),
]
MORE_BUDGETS = [("vgg8", 0.05, flops), ("resnet20", 0.25, flops)]


@pytest.mark.parametrize(
    ("name", "share", "cost"),
    [*BUDGETS, *(pytest.param(*more, marks=pytest.mark.slow) for more in MORE_BUDGETS)],
)
def test_a_budget_is_kept_and_nearly_used_up(name, share, cost):
    teacher = NAMED[name].clone(blocks=FLAT[name]) if name in FLAT else NAMED[name]
    keeps_its_budget(teacher, share, cost)


@pytest.mark.slow
@pytest.mark.parametrize("cost", [parameter_count, flops])
@pytest.mark.parametrize(("name", "share"), [budget[:2] for budget in BUDGETS + MORE_BUDGETS])
def test_a_budget_of_either_kind_is_kept_by_whole_networks(name, share, cost):
    keeps_its_budget(NAMED[name], share, cost)


def keeps_its_budget(teacher, share, cost):
    spent = cost(derive_within(teacher, partial(cost, shape=SHAPE), share), SHAPE)
    budget = share * cost(teacher, SHAPE)
    assert 0.8 * budget < spent <= budget


def test_depth_comes_before_width():
    teacher = NAMED["resnet56"]
    student = derive_within(teacher, partial(parameter_count, shape=SHAPE), 0.5, depth=0.34)
    assert student == teacher.clone(blocks=(3, 3, 3))


def test_a_budget_below_one_channel_a_layer_is_refused():
    with pytest.raises(ValueError, match=r"even one channel a layer costs 0.* lower the depth"):
        derive_within(SmallCNN(), partial(parameter_count, shape=SHAPE), 1e-4)


@pytest.fixture(scope="module")
def teacher(data_directory, digits, tmp_path_factory) -> Loaded:
    path = tmp_path_factory.mktemp("derivation") / "teacher"
    run_it(tiny_run(data_directory), path, digits)
    return load(path)


def test_the_command_prints_both_and_writes_the_student(teacher, tmp_path, capsys):
    out = tmp_path / "small"
    assert main(["derive", str(teacher.directory), "--params", "0.5", "--out", str(out)]) == 0
    said = capsys.readouterr().out
    assert "top-1, validation" in said
    assert f"{parameter_count(TINY, (8, 8, 1)):,}" in said
    student = load(out)
    assert student.model.hidden < TINY.hidden
    assert student.run.inherit == Derive(width=1.0, params=0.5)
    assert main(["evaluate", str(out)]) == 0
    assert main(["derive", str(teacher.directory), "--width", "0.5", "--out", str(out)]) == 1
    assert "is not empty" in capsys.readouterr().err


def test_a_latency_budget_narrows_until_it_is_met(teacher, monkeypatch):
    """Timed by a clock of our own: a millisecond a channel."""
    import kdjax.jobs.derive as derivation

    def clock(networks, rounds=50):
        return {k: {"1": float(n.model.widths[0]), "64": 0.0} for k, n in networks.items()}

    monkeypatch.setattr(derivation, "latency_ms", clock)
    found = derive_run(teacher.directory, Derive(width=1.0), latency=2.4)
    assert found["student"].model.widths[0] == 2
    assert found["student"].latency_ms == 2.0


def test_as_many_batches_are_looked_at_as_were_asked_for(teacher, monkeypatch):
    asked = []

    def noted(source, size, seed, count):
        asked.append(count)
        return first_batches(source, size, seed, count)

    monkeypatch.setattr("kdjax.jobs.derive.first_batches", noted)
    derive_run(teacher.directory, Derive(width=0.5, recalibrate=3))
    assert asked == [3]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "nothing given; say how small"),
        (["--width", "0.5", "--params", "0.5"], "--width and --params given"),
        (["--width", "0"], r"width: .*0.* cannot work"),
        (["--params", "2"], "2.0 cannot work"),
    ],
)
def test_flags_that_do_not_say_how_small(flags, message, teacher, capsys):
    assert main(["derive", str(teacher.directory), *flags]) == 1
    assert re.search(message, capsys.readouterr().err)


# --- importance --------------------------------------------------------------------------------


def filled(model: ResNet, seed: int):
    shapes = initial_variables(model, (8, 8, 1), jax.random.key(0))
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda x: rng.uniform(0.5, 1.5, x.shape).astype(np.float32), shapes)


def test_bn_scale_keeps_the_channels_with_the_largest_scales():
    teacher = ResNet(blocks=(1,), widths=(4, 4))
    variables = filled(teacher, 0)
    inner = variables["params"]["stage1_block0_bn1"]
    inner["scale"] = np.float32([0.1, -3.0, 0.2, 2.0])
    stream = ("stem_bn", "stage1_block0_bn2")
    for layer in stream:
        variables["params"][layer]["scale"] = np.float32([5.0, 0.1, 0.1, 4.0])
    student = teacher.clone(widths=(2, 2))
    how = Derive(importance="bn_scale", recalibrate=0)
    args = (teacher, variables, student, filled(student, 1), how, (8, 8, 1), lambda: iter(()))
    params = first_weights(*args)["params"]
    np.testing.assert_array_equal(params["stage1_block0_bn1"]["scale"], [-3.0, 2.0])
    for layer in stream:
        np.testing.assert_array_equal(params[layer]["scale"], [5.0, 4.0])


def test_taylor_keeps_what_the_loss_would_miss(teacher, digits):
    """Independent of the code: the loss with each hidden unit silenced, one at a time."""
    batches = partial(first_batches, digits.open("train"), 128, 0, 4)
    pairs = list(batches())
    images, labels = (np.concatenate(part) for part in zip(*pairs, strict=True))
    images = jnp.asarray(images)
    params = jax.tree.map(np.array, teacher.variables["params"])
    gradients = loss_gradients(teacher.model, teacher.variables, pairs)

    def loss(params):
        outputs = teacher.model.apply({**teacher.variables, "params": params}, images)
        log_p = np.asarray(jax.nn.log_softmax(outputs.logits), np.float64)
        return -log_p[np.arange(len(labels)), labels].mean()

    # A small step along a unit's own weights changes the loss by the score, to first order.
    for unit in range(4):
        moved = jax.tree.map(np.array, params)
        expected = 0.0
        for leaf in ("kernel", "bias"):
            own = params["dense"][leaf][..., unit]
            moved["dense"][leaf][..., unit] = own * np.float32(1.01)
            expected += float((own * gradients["dense"][leaf][..., unit]).sum())
        assert (loss(moved) - loss(params)) / 0.01 == pytest.approx(expected, rel=0.1, abs=2e-4)


def test_taylor_needs_batches(tiny):
    derive = Derive(importance="taylor", recalibrate=0)
    experiment = tiny()
    student = dataclasses.replace(experiment.student, derive=derive)
    with pytest.raises(ValueError, match=r"student.derive.recalibrate: 0 cannot work"):
        validate(dataclasses.replace(experiment, student=student))


@pytest.mark.parametrize("label", [-1, 10])
def test_taylor_refuses_labels_that_are_no_classes(label, teacher, digits):
    """Of -1 the last class would be learnt, and of 10 nothing that shows."""
    images, labels = digits.open("train").read(np.arange(8))
    labels[3] = label
    with pytest.raises(ValueError, match=rf"importance: taylor .* {label} is none of 10 classes"):
        loss_gradients(teacher.model, teacher.variables, [(images, labels)])


@pytest.mark.parametrize("importance", ["l1", "bn_scale", "taylor"])
def test_each_importance_gives_a_student_that_works(importance, teacher):
    how = Derive(width=0.5, importance=importance)
    found = derive_run(teacher.directory, how)
    assert found["student"].top1 is not None
    assert found["student"].parameters < found["teacher"].parameters
