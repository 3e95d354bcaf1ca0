"""The same distillation step in PyTorch, in the forms its users run.

The networks get our weights, and must give our logits, before they are timed. Must not be imported
where PyTorch may be missing: `against` is the door.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import jax
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from kdjax.benchmark.subject import Subject
from kdjax.benchmark.torch_networks import network
from kdjax.experiment.objective import Term
from kdjax.experiment.optim import SGD, AdamW, Optimizer
from kdjax.losses import CrossEntropy, SoftTarget
from kdjax.models import Model, infer
from kdjax.models.summary import Shape
from kdjax.students.torch_weights import slots, to_torch
from kdjax.training.state import initial_variables
from kdjax.types import Variables

Form = Literal["eager", "channels_last", "compiled"]
FORMS: tuple[Form, ...] = ("eager", "channels_last", "compiled")
"""NCHW memory; NHWC memory, usually faster; the latter with `torch.compile`."""

CLOSE = {"float32": 1e-2, "bfloat16": 5e-2}
"""How far logits may be apart, as a share of the largest; GPUs multiply float32 in TF32."""


@dataclass(frozen=True)
class Pending:
    """Work under way; `jax.block_until_ready` waits for it as for an array of JAX."""

    result: Tensor

    def block_until_ready(self) -> "Pending":
        """When it is done."""
        if self.result.is_cuda:
            torch.cuda.synchronize()
        return self


def set_up() -> str:
    """As many threads as there are cores, TF32 on a GPU as in JAX. Says what was set up."""
    torch.set_num_threads(os.cpu_count() or 1)
    torch.set_float32_matmul_precision("high")
    name = torch.cuda.get_device_name() if _device() == "cuda" else "cpu"
    return f"torch {torch.__version__}, {name}, {torch.get_num_threads()} threads"


def make_step(subject: Subject, form: Form) -> Callable[[], Pending]:
    """One training step on always the same batch. ValueError for what is not written here."""
    run, info = subject.run, subject.info
    if run.fit.phases:
        raise ValueError(
            "student.fit.phases: --against torch compares steps that train everything; leave them "
            "out."
        )
    student_variables = jax.device_get(initial_variables(run.model, info.shape, jax.random.key(2)))
    teacher = counterpart(subject.teacher, subject.teacher_variables, info.shape)
    student = counterpart(run.model, student_variables, info.shape)
    memory = torch.contiguous_format if form == "eager" else torch.channels_last
    device = _device()
    for net in (teacher.eval(), student.train()):
        net.to(device).to(memory_format=memory)
    batch = subject.stream.batch(0, subject.rows)
    images = _to_channels_first(np.asarray(batch.image)).to(device, memory_format=memory)
    labels = torch.from_numpy(np.asarray(batch.label, np.int64)).to(device)
    rate = float(subject.recipe.schedule()(0))
    optimizer = _optimizer(run.fit.optimizer, rate, student)
    objective = [_term(term, i) for i, term in enumerate(run.losses)]

    low = run.model.dtype == "bfloat16"

    def loss() -> Tensor:
        with torch.autocast(device, torch.bfloat16, enabled=low):
            with torch.no_grad():
                taught = teacher(_pixels(subject.teacher, images))
            logits = student(_pixels(run.model, images))
        terms = [term(logits.float(), taught.float(), labels) for term in objective]
        return torch.stack(terms).sum()

    forward = torch.compile(loss) if form == "compiled" else loss

    def step() -> Pending:
        optimizer.zero_grad()
        value = forward()
        value.backward()
        optimizer.step()
        return Pending(value.detach())

    return step


def counterpart(model: Model, variables: Variables, shape: Shape) -> nn.Module:
    """The network with our weights, which are checked to do there what they do here."""
    net = network(model, shape)
    names = {name for name in net.state_dict() if not name.endswith("num_batches_tracked")}
    for naming in model.torch_names():
        if {slot.key for slot in slots(model, shape, naming)} == names:
            tensors = to_torch(model, variables, shape, naming)
            break
    else:
        raise RuntimeError(f"{type(model).__name__} in PyTorch has layers of other names.")
    net.load_state_dict({k: torch.tensor(x) for k, x in tensors.items()}, strict=False)
    check_logits(net, model, variables, shape)
    return net


def check_logits(net: nn.Module, model: Model, variables: Variables, shape: Shape) -> None:
    """RuntimeError if the answers to a few random images are not ours."""
    images = np.random.default_rng(0).integers(0, 256, (4, *shape), np.uint8)
    expected = np.asarray(jax.jit(infer, static_argnums=0)(model, variables, images).logits)
    with torch.no_grad():
        found = net.eval()(_pixels(model, _to_channels_first(images))).numpy()
    if not np.abs(found - expected).max() <= CLOSE[model.dtype] * np.abs(expected).max():
        raise RuntimeError(f"{type(model).__name__} in PyTorch gives other logits than ours.")


def _device() -> str:
    return "cuda" if jax.default_backend() == "gpu" and torch.cuda.is_available() else "cpu"


def _to_channels_first(images: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))


def _pixels(model: Model, images: Tensor) -> Tensor:
    mean, std = (
        torch.tensor(x, device=images.device).view(1, -1, 1, 1) for x in (model.mean, model.std)
    )
    return (images.float() / 255 - mean) / std


def _term(term: Term, place: int) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    loss, weight = term.loss, term.weight
    if isinstance(loss, CrossEntropy) and not (loss.class_weights or loss.counts_classes):
        smoothing = loss.label_smoothing
        return lambda logits, _, labels: (
            weight * functional.cross_entropy(logits, labels, label_smoothing=smoothing)
        )
    if isinstance(loss, SoftTarget) and isinstance(loss.temperature, int | float):
        return _soft_target(weight, loss.temperature)
    raise ValueError(
        f"student.losses.{place}.loss: {type(loss).__name__} is not written for PyTorch here; "
        "--against torch compares CrossEntropy without class weights and SoftTarget of one "
        "temperature."
    )


def _soft_target(weight: float, t: float) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    def value(logits: Tensor, taught: Tensor, _: Tensor) -> Tensor:
        ours, target = (functional.log_softmax(x / t, 1) for x in (logits, taught))
        kl = functional.kl_div(ours, target, reduction="batchmean", log_target=True)
        return weight * t**2 * kl

    return value


def _optimizer(spec: Optimizer, rate: float, net: nn.Module) -> torch.optim.Optimizer:
    if not isinstance(spec, SGD | AdamW):
        raise ValueError(
            f"student.fit.optimizer: {type(spec).__name__} is not written for PyTorch here; "
            "--against torch compares SGD and AdamW."
        )
    parameters = list(net.parameters())
    decayed = [p for p in parameters if spec.decay == "all" or p.ndim > 1]
    rest = [p for p in parameters if not (spec.decay == "all" or p.ndim > 1)]
    groups: list[dict[str, Any]] = [
        {"params": decayed, "weight_decay": spec.weight_decay},
        {"params": rest, "weight_decay": 0.0},
    ]
    if isinstance(spec, SGD):
        return torch.optim.SGD(groups, rate, momentum=spec.momentum, nesterov=spec.nesterov)
    return torch.optim.AdamW(groups, rate, betas=(spec.b1, spec.b2), eps=spec.eps)
