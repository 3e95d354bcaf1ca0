"""A step beside the same step in PyTorch: that it is the same, not how fast it is."""

import dataclasses
import io

import jax
import pytest
from rich.console import Console

from kdjax.benchmark.against import Rivals, check_against, compared, rivals
from kdjax.benchmark.measure import Timing
from kdjax.benchmark.parts import step_program
from kdjax.benchmark.subject import subject_of
from kdjax.commands.benchmark import against
from kdjax.experiment import Runtime
from kdjax.experiment.objective import Term
from kdjax.experiment.optim import DOT, SGD, AdamW
from kdjax.experiment.schedules import Constant
from kdjax.losses import DKD, CrossEntropy, SoftTarget
from kdjax.models import MobileNetV2, ResNet, SmallCNN, ViT, WideResNet
from kdjax.training.state import initial_variables
from tests.networks import MOBILENET_V2

SHAPE = (18, 16, 3)
LOOK = {"num_classes": 5, "mean": (0.4, 0.5, 0.6), "std": (0.2, 0.3, 0.25)}
SMALL_WIDTHS = {"blocks": (2, 1), "widths": (4, 4, 8)}

NETWORKS = {
    "small_cnn": SmallCNN(widths=(4, 6), hidden=10, **LOOK),
    "wide_resnet": WideResNet(**SMALL_WIDTHS, **LOOK),
    "resnet": ResNet(**SMALL_WIDTHS, **LOOK),
    "bottleneck": ResNet(block="bottleneck", inner=0.5, **SMALL_WIDTHS, **LOOK),
    "imagenet": ResNet(block="bottleneck", inner=0.5, stem="imagenet", **SMALL_WIDTHS, **LOOK),
    "mobilenet_v2": MOBILENET_V2,
    "mobilenet_v2_half": MobileNetV2(
        blocks=(1, 2),
        widths=(4, 4, 6),
        strides=(1, 1, 2),
        expansions=(1, 2),
        head=10,
        activation="relu",
        **LOOK,
    ),
}


@pytest.fixture
def torch_step():
    pytest.importorskip("torch", reason="needs PyTorch")
    from kdjax.benchmark import torch_step

    return torch_step


@pytest.fixture
def experiment(tiny):
    """Labels and teacher on one device."""
    base = tiny()
    losses = (Term(CrossEntropy()), Term(SoftTarget(temperature=4)))
    student = dataclasses.replace(base.student, losses=losses)
    runtime = Runtime(devices=1, compilation_cache=False)
    return dataclasses.replace(base, student=student, runtime=runtime, baseline=False)


def fitted(experiment, **fields):
    fit = dataclasses.replace(experiment.student.fit, **fields)
    student = dataclasses.replace(experiment.student, fit=fit)
    return dataclasses.replace(experiment, student=student)


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_of_pytorch_answer_like_ours(name, torch_step):
    model = NETWORKS[name]
    variables = jax.device_get(initial_variables(model, SHAPE, jax.random.key(0)))
    net = torch_step.counterpart(model, variables, SHAPE)
    other = jax.device_get(initial_variables(model, SHAPE, jax.random.key(1)))
    with pytest.raises(RuntimeError, match="other logits"):
        torch_step.check_logits(net, model, other, SHAPE)


@pytest.mark.parametrize(
    "optimizer",
    [
        SGD(momentum=0.9, weight_decay=0.1, decay="all"),
        SGD(momentum=0.8, nesterov=True, weight_decay=0.1, decay="kernels"),
        AdamW(weight_decay=0.5),
    ],
    ids=["sgd", "nesterov", "adamw"],
)
def test_both_take_the_same_steps(experiment, optimizer, torch_step):
    """The loss after three updates agrees, so losses, gradients and optimizer do."""
    rate = 0.001 if isinstance(optimizer, AdamW) else 0.05
    same = fitted(experiment, optimizer=optimizer, schedule=Constant(peak=rate), batch_size=32)
    subject = subject_of(same, None)
    ours = step_program(subject, subject.fixed, subject.batch())
    theirs = torch_step.make_step(subject, "channels_last")
    losses = [(float(ours()[0]), float(theirs().result)) for _ in range(4)]
    assert losses[0][0] != pytest.approx(losses[3][0], rel=1e-3)
    for mine, yours in losses:
        assert mine == pytest.approx(yours, rel=2e-4)


def test_what_is_not_written_for_pytorch_is_refused(experiment, torch_step):
    def step_of(experiment):
        torch_step.make_step(subject_of(experiment, None), "eager")

    vit = ViT(patch=4, image_size=(8, 8), blocks=(1,), heads=2, head_size=4)
    student = dataclasses.replace(experiment.student, model=vit)
    with pytest.raises(ValueError, match=r"--against torch: ViT is not written .* MobileNetV2 are"):
        step_of(dataclasses.replace(experiment, student=student))
    student = dataclasses.replace(experiment.student, model=WideResNet(dropout=0.3))
    with pytest.raises(ValueError, match="--against torch: dropout is not written for PyTorch"):
        step_of(dataclasses.replace(experiment, student=student))
    losses = (Term(CrossEntropy()), Term(DKD()))
    student = dataclasses.replace(experiment.student, losses=losses)
    with pytest.raises(ValueError, match=r"student\.losses\.1\.loss: DKD is not written"):
        step_of(dataclasses.replace(experiment, student=student))
    with pytest.raises(ValueError, match=r"student\.fit\.optimizer: DOT is not written"):
        step_of(fitted(experiment, optimizer=DOT()))


def test_what_cannot_be_compared_here_is_said_before_anything_is_measured(experiment, monkeypatch):
    eight = dataclasses.replace(experiment, runtime=Runtime(compilation_cache=False))
    monkeypatch.setattr("kdjax.benchmark.against.find_spec", lambda name: object())
    with pytest.raises(ValueError, match=r"one device, not 8; add --runtime\.devices 1"):
        check_against(subject_of(eight, None), "torch")
    monkeypatch.setattr("kdjax.benchmark.against.find_spec", lambda name: None)
    with pytest.raises(
        ValueError, match=r"torch: it is not installed; pip install 'kdjax\[torch\]'"
    ):
        check_against(subject_of(experiment, None), "torch")


def test_a_form_that_does_not_run_is_left_out_and_named(experiment, torch_step, monkeypatch):
    made = torch_step.make_step

    def make_step(subject, form):
        if form != "compiled":
            return made(subject, form)

        def fails():
            raise RuntimeError("no compiler\nand much more")

        return fails

    monkeypatch.setattr(torch_step, "make_step", make_step)
    augmented = subject_of(fitted(experiment, ema_decay=0.9, accumulate=2), None)
    found = rivals(augmented, "torch")
    assert [*found.programs] == ["kdjax", "torch eager", "torch channels_last"]
    assert found.left_out == {"compiled": "RuntimeError: no compiler"}
    jax.block_until_ready(found.programs["kdjax"]())


def timing(seconds):
    return Timing(seconds=seconds, fastest=seconds, processor=2 * seconds, calls=1)


def test_how_much_faster_ours_is_says_the_table():
    found = Rivals("torch 2", {"kdjax": print, "torch eager": print}, {"compiled": "why"})
    result = compared(found, {"kdjax": timing(0.5), "torch eager": timing(0.4)})
    assert result["ours_faster"] == {"torch eager": pytest.approx(0.8)}
    assert result["timings"]["kdjax"]["seconds"] == 0.5
    assert result["ours_faster_processor"]["torch eager"] == pytest.approx(0.8)
    out = io.StringIO()
    Console(width=120, file=out).print(against(result, batch=100))
    text = out.getvalue()
    row = next(line for line in text.splitlines() if "torch eager" in line)
    assert row.split() == ["torch", "eager", "400.000", "250", "0.80", "x", "0.80", "x"]
    assert "compiled left out: why" in text
