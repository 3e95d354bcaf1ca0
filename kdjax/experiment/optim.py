"""Optimizers and learning-rate schedules, as values that build Optax transformations."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array

from kdjax.checks import require

Decay = Literal["all", "kernels"]
"""What weight decay touches: every array that is trained, or kernels alone: those of two or more
axes that are no tokens, positions or scales, as in timm and DeiT."""

Share = Callable[[str], float]
"""From the path of a parameter, `student/stem/kernel`, to what a number is multiplied by there."""

NO_KERNEL = re.compile(r"token|position|scale|pos_embed|relative_bias")
"""In the paths of arrays that have two or more axes and are no kernels."""


def everywhere(path: str) -> float:
    """The share of all parameters that are treated alike."""
    del path
    return 1.0


@dataclass(frozen=True, kw_only=True)
class Cosine:
    """Linear warm-up to `peak`, then half a cosine down to `peak * final`."""

    peak: float = 0.1
    """Highest learning rate."""
    warmup_epochs: float = 0.0
    """Length of the linear warm-up from zero."""
    final: float = 0.0
    """What it falls to by the end, as a fraction of the peak."""

    def check(self) -> None:
        """Raise ValueError for the first field that cannot work."""
        _check_rise(self.peak, self.warmup_epochs)
        require("final", self.final, 0 <= self.final <= 1, "in [0, 1]")

    def schedule(self, steps_per_epoch: float, steps: int) -> optax.Schedule:
        """Learning rate by step."""
        warmup = min(round(self.warmup_epochs * steps_per_epoch), steps - 1)
        cosine = optax.cosine_decay_schedule(self.peak, max(steps - warmup, 1), self.final)
        return _after_warmup(self.peak, warmup, cosine)


@dataclass(frozen=True, kw_only=True)
class Steps:
    """Linear warm-up to `peak`, then times `factor` after each of `epochs`."""

    peak: float = 0.05
    """First learning rate."""
    epochs: tuple[float, ...] = (150, 180, 210)
    """When the rate drops, in epochs completed."""
    factor: float = 0.1
    """What it is multiplied by at each drop."""
    warmup_epochs: float = 0.0
    """Length of the linear warm-up from zero."""

    def check(self) -> None:
        """Raise ValueError for the first field that cannot work."""
        _check_rise(self.peak, self.warmup_epochs)
        times = (self.warmup_epochs, *self.epochs)
        rising = all(a < b for a, b in zip(times, self.epochs, strict=False))
        require("epochs", self.epochs, rising, "rising, after the warm-up")
        require("factor", self.factor, self.factor > 0, "positive")

    def schedule(self, steps_per_epoch: float, steps: int) -> optax.Schedule:
        """Learning rate by step."""
        del steps
        warmup = round(self.warmup_epochs * steps_per_epoch)
        drops: dict[int, float] = {}
        for epoch in self.epochs:  # several may fall on one step of a short run
            step = round(epoch * steps_per_epoch) - warmup
            drops[step] = drops.get(step, 1.0) * self.factor
        return _after_warmup(self.peak, warmup, optax.piecewise_constant_schedule(self.peak, drops))


@dataclass(frozen=True, kw_only=True)
class Constant:
    """Linear warm-up to `peak`, then no change."""

    peak: float = 0.001
    """The learning rate."""
    warmup_epochs: float = 0.0
    """Length of the linear warm-up from zero."""

    def check(self) -> None:
        """Raise ValueError for the first field that cannot work."""
        _check_rise(self.peak, self.warmup_epochs)

    def schedule(self, steps_per_epoch: float, steps: int) -> optax.Schedule:
        """Learning rate by step."""
        del steps
        warmup = round(self.warmup_epochs * steps_per_epoch)
        return _after_warmup(self.peak, warmup, optax.constant_schedule(self.peak))


Schedule = Cosine | Steps | Constant


def _check_rise(peak: float, warmup_epochs: float) -> None:
    require("peak", peak, peak > 0, "positive")
    require("warmup_epochs", warmup_epochs, warmup_epochs >= 0, ">= 0")


def _check_momentum(name: str, kept: float) -> None:
    require(name, kept, 0 <= kept < 1, "in [0, 1)")


def _check_decay(weight_decay: float) -> None:
    require("weight_decay", weight_decay, weight_decay >= 0, ">= 0")


def _after_warmup(peak: float, warmup: int, rest: optax.Schedule) -> optax.Schedule:
    if warmup <= 0:
        return rest
    return optax.join_schedules([optax.linear_schedule(0.0, peak, warmup), rest], [warmup])


@dataclass(frozen=True, kw_only=True)
class SGD:
    """Stochastic gradient descent with momentum and coupled (L2) weight decay, as in PyTorch."""

    momentum: float = 0.9
    """Share of the previous update that is kept."""
    nesterov: bool = False
    """Look ahead along the momentum."""
    weight_decay: float = 5e-4
    """Added to the gradient as `weight_decay * parameter`."""
    decay: Decay = "kernels"
    """What weight decay touches; the CIFAR-100 benchmark protocol decays "all"."""

    splits_task: ClassVar[bool] = False

    def check(self) -> None:
        """Raise ValueError for the first field that cannot work."""
        _check_decay(self.weight_decay)
        _check_momentum("momentum", self.momentum)

    def transform(
        self, rate: optax.Schedule, share: Share = everywhere
    ) -> optax.GradientTransformation:
        """Gradients to updates; `share` is that of the weight decay."""
        return optax.chain(
            decayed(self.weight_decay, self.decay, share),
            optax.sgd(rate, momentum=self.momentum or None, nesterov=self.nesterov),
        )


@dataclass(frozen=True, kw_only=True)
class AdamW:
    """Adam with decoupled weight decay (Loshchilov and Hutter, 2019, arXiv:1711.05101)."""

    b1: float = 0.9
    """Decay of the first moment."""
    b2: float = 0.999
    """Decay of the second moment."""
    eps: float = 1e-8
    """Added to the root of the second moment."""
    weight_decay: float = 1e-4
    """Times the learning rate, subtracted from the parameter."""
    decay: Decay = "kernels"
    """What weight decay touches."""

    splits_task: ClassVar[bool] = False

    def check(self) -> None:
        """Raise ValueError for the first field that cannot work."""
        _check_decay(self.weight_decay)
        _check_momentum("b1", self.b1)
        _check_momentum("b2", self.b2)
        require("eps", self.eps, self.eps > 0, "positive")

    def transform(
        self, rate: optax.Schedule, share: Share = everywhere
    ) -> optax.GradientTransformation:
        """Gradients to updates; `share` is that of the weight decay."""
        return optax.chain(
            optax.scale_by_adam(b1=self.b1, b2=self.b2, eps=self.eps),
            decayed(self.weight_decay, self.decay, share),
            optax.scale_by_learning_rate(rate),
        )


@dataclass(frozen=True, kw_only=True)
class DOT:
    """SGD with a momentum each for task and teacher (Zhao et al., 2023, arXiv:2307.08436).

    `v_task = (momentum - delta) v_task + g_task`, `v_kd = (momentum + delta) v_kd + g_kd`, and both
    are subtracted, times the learning rate. The task's gradient is that of the terms which
    need no teacher, and weight decay goes with it. Parameters of adapters follow the teacher's
    momentum; the authors' code gives those the mean of the two.
    """

    momentum: float = 0.9
    """Mean of the two momenta."""
    delta: float = 0.075
    """How far each is from the mean."""
    weight_decay: float = 5e-4
    """Added to the task's gradient as `weight_decay * parameter`."""
    decay: Decay = "kernels"
    """What weight decay touches; the CIFAR-100 benchmark protocol decays "all"."""

    splits_task: ClassVar[bool] = True

    def check(self) -> None:
        """Raise ValueError for the first field that cannot work."""
        _check_decay(self.weight_decay)
        _check_momentum("momentum", self.momentum)
        room = min(self.momentum, 1 - self.momentum)
        require("delta", self.delta, 0 <= self.delta < room, f"in [0, {room:g})")

    def transform(
        self, rate: optax.Schedule, share: Share = everywhere
    ) -> optax.GradientTransformationExtraArgs:
        """Gradients to updates; wants the task's own gradient as `task` beside the whole one.

        `share` is that of the weight decay.
        """
        decay = decayed(self.weight_decay, self.decay, share)
        slow, fast = self.momentum - self.delta, self.momentum + self.delta

        def init(params: Any) -> Any:
            zeros = jax.tree.map(jnp.zeros_like, params)
            return {"task": zeros, "distil": zeros}

        def update(gradients: Any, state: Any, params: Any = None, *, task: Any, **_: Any) -> Any:
            distil = jax.tree.map(jnp.subtract, gradients, task)
            task, _ = decay.update(task, optax.EmptyState(), params)
            task = jax.tree.map(lambda v, g: slow * v + g, state["task"], task)
            distil = jax.tree.map(lambda v, g: fast * v + g, state["distil"], distil)
            both = jax.tree.map(jnp.add, task, distil)
            return both, {"task": task, "distil": distil}

        return optax.chain(
            optax.GradientTransformationExtraArgs(init, update), optax.scale_by_learning_rate(rate)
        )


Optimizer = SGD | AdamW | DOT


def decayed(weight_decay: float, decay: Decay, share: Share) -> optax.GradientTransformation:
    """Adds `weight_decay · share(path) · parameter` to the updates of what decays."""

    def update(updates: Any, params: Any) -> Any:
        def one(path: Any, update: Array, parameter: Array) -> Array:
            factor = weight_decay * share(path_of(path))
            if decay == "all" or is_kernel(path_of(path), parameter):
                return update + factor * parameter
            return update

        return jax.tree_util.tree_map_with_path(one, updates, params)

    return optax.stateless(update)


def scaled(share: Share) -> optax.GradientTransformation:
    """Multiplies updates by the share of their paths: learning rates that differ."""

    def update(updates: Any, params: Any) -> Any:
        del params

        def one(path: Any, update: Array) -> Array:
            return update * share(path_of(path))

        return jax.tree_util.tree_map_with_path(one, updates)

    return optax.stateless(update)


def clipped_apart(norm: float) -> optax.GradientTransformation:
    """Scales the gradients of the network, and those of adapters, down to this global norm each."""

    def update(updates: Any, params: Any) -> Any:
        del params
        clip = optax.clip_by_global_norm(norm)
        return {of: clip.update(part, optax.EmptyState())[0] for of, part in updates.items()}

    return optax.stateless(update)


def is_kernel(path: str, parameter: Array) -> bool:
    """Whether an array is one that `decay="kernels"` touches."""
    return parameter.ndim > 1 and (path.endswith("/kernel") or not NO_KERNEL.search(path))


def path_of(keys: Any) -> str:
    """`student/stem/kernel`: what JAX calls the way to a leaf."""
    return jax.tree_util.keystr(keys, simple=True, separator="/")
