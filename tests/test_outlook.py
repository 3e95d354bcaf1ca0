"""What the outlook says of a job, against numbers worked out by hand; no device is needed."""

import dataclasses
import itertools
import json
import os
import subprocess
import sys

import flax.linen as nn
import jax
import pytest

from kdjax.cli import main
from kdjax.experiment.objective import Term
from kdjax.experiment.runs import student_run
from kdjax.losses import AttentionTransfer, CrossEntropy
from kdjax.models import NAMED
from kdjax.models.base import VisionModel
from kdjax.models.summary import flops
from kdjax.outlook.account import outlook, subject
from kdjax.outlook.check import check
from kdjax.outlook.chips import CHIPS, Chip, chip_named
from kdjax.outlook.estimate import estimate
from kdjax.outlook.layers import Layer, layers_of, operations
from kdjax.outlook.workload import Network, Workload, workload, workloads
from kdjax.types import Outputs

CHIP = Chip(
    name="slate",
    bfloat16=200.0,
    float32=100.0,
    memory=1000.0,
    bandwidth=80.0,
    link=10.0,
    joined=2,
    network=1.0,
    host=2,
    cores=4,
    launch=0.0,
    flops_share=1.0,
    bandwidth_share=1.0,
    source="made up",
)


def work(**fields):
    """A student of one layer, 6 operations and 2 numbers an image, float32."""
    plain = {
        "role": "student",
        "student": Network(layers=(Layer(6, 2),)),
        "batch": 8,
        "steps": 100,
        "steps_per_checkpoint": 1e12,
        "examples": 40,
        "shape": (2, 5, 1),
        "parameters": 0,
        "state": 0,
    }
    return Workload(**{**plain, **fields})


@pytest.mark.parametrize("name", ["resnet20", "vgg8", "shuffle_v1", "mobilenet_v1", "row_lstm"])
def test_layers_have_the_operations_of_the_network(name):
    layers = layers_of(NAMED[name], (32, 32, 3))
    assert operations(layers) == flops(NAMED[name], (32, 32, 3))


class Forms(VisionModel):
    """A convolution, a sum, and a product in two forms."""

    @nn.compact
    def __call__(self, images, train=False):
        x = self.conv(4, 3)(self.pixels(images))
        x = (x + x).mean((1, 2))
        kernel = self.param("kernel", nn.initializers.ones, (4, 10))
        slow = lambda x: x @ kernel + x @ kernel  # noqa: E731
        logits = jax.lax.platform_dependent(x, cpu=slow, default=lambda x: x @ kernel)
        return Outputs(logits, {}, x)


def test_layers_are_those_of_any_platform_but_the_named():
    sum_ = Layer(0, 5 * 5 * 4)
    conv, dense = Layer(2 * 27 * 5 * 5 * 4, 5 * 5 * 4), Layer(2 * 4 * 10, 10)
    assert layers_of(Forms(), (5, 5, 3)) == (conv, sum_, dense)


def test_a_layer_takes_the_longer_of_operations_and_bytes():
    found = estimate(work(), CHIP, 1)
    # 8 images: 3 · 6 · 8 / 100 of operations, 14 · 2 · 4 · 8 / 80 of bytes.
    assert (found.compute, found.memory) == pytest.approx((0.0, 11.2))
    heavy = estimate(work(student=Network(layers=(Layer(6000, 2),))), CHIP, 1)
    assert (heavy.compute, heavy.memory) == pytest.approx((3 * 6000 * 8 / 100, 0.0))
    half = estimate(work(student=Network(layers=(Layer(6000, 2),), dtype="bfloat16")), CHIP, 1)
    assert half.compute == pytest.approx(heavy.compute / 2)
    summed = estimate(work(student=Network(layers=(Layer(0, 2),))), CHIP, 1)
    assert summed.memory == pytest.approx(5 * 2 * 4 * 8 / 80)


def test_a_teacher_is_only_asked():
    taught = work(teacher=Network(layers=(Layer(6, 2), Layer(0, 3))), teacher_size=7)
    alone = estimate(work(), CHIP, 1).memory
    asked = (4 * 2 + 2 * 3) * 4 * 8 / 80
    assert estimate(taught, CHIP, 1).memory == pytest.approx(alone + asked)
    assert estimate(taught, CHIP, 1).needs["teacher"] == 7
    assert estimate(taught.without_teacher(), CHIP, 1).step() == estimate(work(), CHIP, 1).step()


def test_shares_of_the_peaks():
    assert CHIPS["H200"].rate("bfloat16") == pytest.approx(790e12, rel=0.01)
    assert CHIPS["H200"].bytes_a_second == pytest.approx(4.3e12, rel=0.01)


def test_what_a_step_takes_beside_the_layers():
    launching = dataclasses.replace(CHIP, launch=3.0)
    taught = work(teacher=Network(layers=(Layer(6, 2),)), accumulate=2)
    assert estimate(taught, launching, 1).launches == (2 + 8) * 3 * 2
    learnt = work(parameters=5, state=40)
    updated = 2 * (40 + 4 * 5) / 80
    plain = estimate(work(), CHIP, 1).memory
    assert estimate(learnt, CHIP, 1).memory == pytest.approx(plain + updated)
    assert estimate(learnt, CHIP, 1).all_reduce == 0
    assert estimate(learnt, CHIP, 2).all_reduce == pytest.approx(2 * 1 / 2 * 20 / 10)
    assert estimate(learnt, CHIP, 4).all_reduce == pytest.approx(2 * 3 / 4 * 20 / 1)
    normed = work(synchronised=3)
    waits = [estimate(normed, CHIP, n).batch_norm for n in (1, 2, 4)]
    assert waits == pytest.approx([0, 2 * 3 * 10e-6, 2 * 3 * 30e-6])


def test_expected_is_three_fifths_of_the_roof_and_all_of_the_collectives():
    found = estimate(work(parameters=5), CHIP, 2)
    roof = found.compute + found.memory
    assert found.step() == pytest.approx(roof / 0.6 + 2.0)
    assert found.step(0.85) == pytest.approx(roof / 0.85 + 2.0)
    assert found.hours() == pytest.approx(100 * found.step() / 3600)


def test_input_checkpoints_and_memory():
    decoded = work(decoded=True, shape=(10_000, 10_000, 3))  # a core-second an image
    found = estimate(decoded, CHIP, 4)  # in two hosts
    assert found.input == pytest.approx(8 / 2 / 4)
    assert found.images_a_host == pytest.approx(found.images_a_second / 2)
    assert found.decode_cores == pytest.approx(found.images_a_host)
    assert estimate(work(resident=True), CHIP, 4).images_a_host == 0
    assert estimate(work(), CHIP, 4).decode_cores == 0
    saved = estimate(work(state=3 * 10**9, steps_per_checkpoint=2), CHIP, 1)
    assert saved.checkpoint == pytest.approx(10)
    needs = estimate(work(state=90, parameters=5, accumulate=2), CHIP, 2).needs
    assert needs == {
        "state": 90,
        "gradients": 20,
        "teacher": 0,
        "activations": 2 * 2 * 4 * 2,
        "images": 3 * 4 * 10,
    }
    assert estimate(work(resident=True), CHIP, 1).needs["images"] == 40 * 10
    # Beside the state, 8 images: 128 of activations and 240 of pixels, of which three batches wait.
    assert estimate(work(state=632), CHIP, 1).fits
    assert not estimate(work(state=633), CHIP, 1).fits


@pytest.mark.parametrize(
    ("name", "fields", "chip", "chips"),
    [
        ("compute", {"student": Network(layers=(Layer(10**6, 2),))}, {}, 1),
        ("memory bandwidth", {}, {}, 1),
        ("launches", {}, {"launch": 100.0}, 1),
        ("all-reduce", {"parameters": 10**6}, {"bandwidth": 1e12}, 2),
        ("batch norm", {"synchronised": 100}, {"bandwidth": 1e12, "float32": 1e12}, 2),
        ("input", {"decoded": True, "shape": (10**5, 10**5, 3)}, {}, 1),
        ("checkpoint", {"state": 10**12, "steps_per_checkpoint": 1}, {"bandwidth": 1e15}, 1),
    ],
)
def test_the_bottleneck_is_named(name, fields, chip, chips):
    found = estimate(work(**fields), dataclasses.replace(CHIP, **chip), chips)
    assert found.bottleneck == name


@pytest.mark.parametrize("chip", CHIPS)
def test_more_chips_never_compute_longer_and_never_cost_less(chip):
    busy = work(student=Network(layers=(Layer(10**9, 10**6),)), batch=1024)
    found = [estimate(busy, CHIPS[chip], 2**i) for i in range(11)]
    for few, more in itertools.pairwise(found):
        assert more.compute + more.memory <= few.compute + few.memory
        assert more.chips * more.hours() >= few.chips * few.hours() * (1 - 1e-9)


PAIRS = {
    "wide": ("wrn_40_2", "wrn_16_2", 32),
    "resnet": ("resnet50", "resnet18", 224),
    "mobile": ("resnet50", "mobilenet_v2", 224),
}


@pytest.mark.parametrize(
    ("pair", "batch", "images_a_second", "cached", "launches"),
    [
        ("wide", 64, 115e3, 179e3, 0.56e-3),
        ("wide", 512, 242e3, 434e3, 0.56e-3),
        ("wide", 1024, 242e3, 435e3, 0.56e-3),
        ("resnet", 256, 19.3e3, 43e3, 0.7e-3),
        ("mobile", 256, 13.7e3, 22.7e3, 1.3e-3),
    ],
)
def test_one_h200_as_it_was_worked_out_apart(pair, batch, images_a_second, cached, launches):
    teacher, student, size = PAIRS[pair]
    networks = [
        Network(layers=layers_of(NAMED[name], (size, size, 3)), dtype="bfloat16")
        for name in (teacher, student)
    ]
    online = work(teacher=networks[0], student=networks[1], batch=batch)
    found = estimate(online, CHIPS["H200"], 1)
    assert batch / found.roof == pytest.approx(images_a_second, rel=0.06)
    assert found.launches == pytest.approx(launches, rel=0.06)
    alone = estimate(online.without_teacher(), CHIPS["H200"], 1)
    assert batch / alone.roof == pytest.approx(cached, rel=0.06)


@pytest.fixture
def small(tiny):
    return dataclasses.replace(tiny(), baseline=False)


def test_a_run_in_numbers(small):
    run = student_run(small, small.teacher.model, (8, 8, 1), None)
    found = workload(run, small.teacher.model, (8, 8, 1), 1000)
    assert found.batch == run.fit.batch_size
    assert found.steps == round(run.fit.epochs * 1000 / found.batch)
    assert found.resident
    assert not found.decoded
    # Parameters, their momentum, statistics, a counter or two.
    assert 8 * found.parameters <= found.state <= 9 * found.parameters + 1000
    assert found.answers == {"dense": 1000 * 10 * 2}  # one view, for nothing is random
    large = workload(run, small.teacher.model, (8, 8, 1), 10**9)
    assert (large.resident, large.decoded) == (False, True)


def test_a_teacher_on_disk_is_not_asked_and_feature_maps_stay_online(small):
    teacher = small.teacher
    cache = dataclasses.replace(teacher.cache, directory="answers")
    kept = dataclasses.replace(small, teacher=dataclasses.replace(teacher, cache=cache))
    found = workloads(kept, teacher.model, (8, 8, 1), 1000)["student"]
    assert found.teacher is None
    assert found.teacher_size == 0
    terms = (Term(CrossEntropy()), Term(AttentionTransfer()))
    student = dataclasses.replace(small.student, losses=terms)
    mapped = dataclasses.replace(small, student=student)
    found = workloads(mapped, teacher.model, (8, 8, 1), 1000)["student"]
    assert found.answers == {}
    assert found.teacher is not None


def test_more_images_take_proportionally_longer(small):
    result = outlook(small, CHIPS["v5e"], 1, synthetic=(8, 8, 1), images=1000, price=2.0)
    rows = result["by_images"]
    for row in rows:
        ratio = row["images"] / rows[0]["images"]
        assert row["hours"] == pytest.approx(ratio * rows[0]["hours"], rel=3e-3)  # whole steps
        assert row["cost"] == pytest.approx(2 * row["chip_hours"])
    chips = [row["chips"] for row in result["by_chips"]]
    assert chips == [n for n in (2**i for i in range(11)) if result["batch"] % n == 0]
    assert sum(run["hours"] for run in result["details"]["runs"].values()) == pytest.approx(
        result["at"]["hours"]
    )


def test_the_check_is_the_formula_on_what_was_measured(small, tmp_path):
    teacher, student = small.teacher.model, small.student.model
    run = student_run(small, teacher, (8, 8, 1), None)
    file = tmp_path / "benchmark.json"
    about = {
        "batch": run.fit.batch_size,
        "images": "8x8x1",
        "teacher": type(teacher).__name__,
        "student": type(student or run.model).__name__,
        "dtype": run.model.dtype,
        "device": "1 x cpu",
    }
    step = {"roof_flops_a_second": 1e9, "roof_bytes_a_second": 1e30}
    timings = {"step": {"seconds": 2.0}, "cached step": {"seconds": 1.0}}
    measured = {"name": small.name, "about": about, "step": step, "timings": timings}
    file.write_text(json.dumps(measured))
    whole, cached = check(small, teacher, (8, 8, 1), file)
    ours = 3 * flops(run.model, (8, 8, 1)) * run.fit.batch_size / 1e9
    theirs = flops(teacher, (8, 8, 1)) * run.fit.batch_size / 1e9
    assert cached["roof_seconds"] == pytest.approx(ours)
    assert whole["roof_seconds"] == pytest.approx(ours + theirs)
    assert whole["error"] == pytest.approx((ours + theirs) / 0.6 / 2 - 1)
    about["batch"] = 1
    file.write_text(json.dumps(measured))
    with pytest.raises(ValueError, match="measured batch 1"):
        check(small, teacher, (8, 8, 1), file)
    for text in ("{}", "[]", "no JSON"):
        file.write_text(text)
        with pytest.raises(ValueError, match="--check"):
            check(small, teacher, (8, 8, 1), file)


def test_what_is_not_known_is_asked_for(small, tmp_path):
    with pytest.raises(ValueError, match="--images: how many"):
        subject(small, (8, 8, 1), None)
    with pytest.raises(ValueError, match="--images: 3 are fewer"):
        subject(small, (8, 8, 1), 3)
    with pytest.raises(ValueError, match="--synthetic"):
        subject(small, (8, 0, 1), None)
    absent = dataclasses.replace(small.data, name="tfds:cifar10", directory=str(tmp_path))
    with pytest.raises(
        ValueError, match=r"not prepared.*To plan without the data, give --synthetic"
    ):
        subject(dataclasses.replace(small, data=absent), None, None)
    with pytest.raises(ValueError, match="--chips: 3 do not divide"):
        outlook(small, CHIPS["L4"], 3, synthetic=(8, 8, 1), images=1000)
    with pytest.raises(ValueError, match="--chip: 'H900' is not in the table; it has H100"):
        chip_named("H900")
    assert chip_named("h200") is CHIPS["H200"]


CIFAR = ("plan", "configs/cifar100.py", "--pair", "resnet56-resnet20", "--synthetic", "32", "32")


def test_the_command_needs_no_device(tmp_path):
    file = tmp_path / "plan.json"
    flags = ["3", "--chip", "v5p", "--chips", "8", "--price", "4.2", "--output", str(file)]
    done = subprocess.run(
        [sys.executable, "-m", "kdjax.cli", *CIFAR, *flags],
        env={**os.environ, "JAX_PLATFORMS": "no_such_platform"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "50,000 images of 32x32x3" in done.stdout
    assert "top-10" in done.stdout
    result = json.loads(file.read_text())
    assert [row["chips"] for row in result["by_chips"]] == [1, 2, 4, 8, 16, 32, 64]
    assert result["at"]["cost"] == pytest.approx(4.2 * 8 * result["at"]["hours"])


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--chip", "K80"], "--chip: 'K80'"),
        (["--chips", "0"], "--chips: 0"),
        (["--chips", "3"], "--chips: 3 do not divide"),
        (["--price", "-1"], "--price: -1.0"),
        (["--epochs", "0"], "--epochs: 0.0"),
        (["--images", "-5"], "--images: -5"),
        (["--check", "nowhere.json"], "--check: nowhere.json"),
    ],
)
def test_flags_that_cannot_be(flags, words, capsys):
    assert main([*CIFAR, "3", *flags]) == 1
    assert words in capsys.readouterr().err


def test_epochs_are_those_of_every_run(tmp_path):
    file = tmp_path / "plan.json"
    assert main([*CIFAR, "3", "--epochs", "2", "--output", str(file)]) == 0
    runs = json.loads(file.read_text())["details"]["runs"]
    steps = {role: run["steps"] for role, run in runs.items()}
    assert steps == dict.fromkeys(("teacher", "student", "baseline"), round(2 * 50_000 / 64))
