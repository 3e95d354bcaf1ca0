"""Optimizers, as values that build Optax transformations."""

import inspect
import operator
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import optax
import optax.contrib
from jaxtyping import Array

from kdjax.checks import nearest, require
from kdjax.experiment.updates import Decay, Share, decayed, everywhere, is_kernel, path_of

Option = float | int | bool | str
"""An argument of an optimizer of Optax."""


def _check_momentum(name: str, kept: float) -> None:
    require(name, kept, 0 <= kept < 1, "in [0, 1)")


def _check_decay(weight_decay: float) -> None:
    require("weight_decay", weight_decay, weight_decay >= 0, ">= 0")


@dataclass(frozen=True, kw_only=True)
class Descent:
    """How gradients become updates: frozen dataclasses derive from it, ours and yours."""

    splits_task: ClassVar[bool] = False
    """It wants the gradient of the terms that need no teacher by itself, as `task`."""

    def check(self) -> None:
        """Raise ValueError for the first field that cannot work."""

    def transform(
        self, rate: optax.Schedule, share: Share = everywhere
    ) -> optax.GradientTransformation:
        """Gradients to updates, which are added; `share` is that of the weight decay, by path."""
        raise ValueError(f"{type(self).__name__} has no transform; define it.")


@dataclass(frozen=True, kw_only=True)
class SGD(Descent):
    """Stochastic gradient descent with momentum and coupled (L2) weight decay, as in PyTorch."""

    momentum: float = 0.9
    """Share of the previous update that is kept."""
    nesterov: bool = False
    """Look ahead along the momentum."""
    weight_decay: float = 5e-4
    """Added to the gradient as `weight_decay * parameter`."""
    decay: Decay = "kernels"
    """What weight decay touches; the CIFAR-100 benchmark protocol decays "all"."""

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
class AdamW(Descent):
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
class DOT(Descent):
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


@dataclass(frozen=True, kw_only=True)
class Optax(Descent):
    """Any optimizer of Optax by its name there: `lion`, `lamb`, `rmsprop`, `contrib.muon`."""

    method: str = "adam"
    """Of the function in `optax`; it takes a `learning_rate`."""
    options: tuple[tuple[str, Option], ...] = ()
    """Its other arguments, in pairs: `(("b1", 0.95), ("b2", 0.98))`."""
    weight_decay: float = 0.0
    """Given to it as `weight_decay`, for what `decay` says."""
    decay: Decay = "kernels"
    """What weight decay touches."""

    def check(self) -> None:
        """Raise ValueError for the first field that cannot work."""
        _check_decay(self.weight_decay)
        known = _parameters_of(self.method)
        ours = {"learning_rate", "weight_decay", "mask"}
        for option, _ in self.options:
            remedy = f"one of {', '.join(sorted(known - ours))}; weight_decay has its own field"
            require("options", option, option in known - ours, remedy)
        if self.weight_decay and not {"weight_decay", "mask"} <= known:
            raise ValueError(
                f"weight_decay: optax.{self.method} has none; leave it 0, or take another one."
            )

        self._try()

    def _try(self) -> None:
        """ValueError unless gradients and parameters are all it asks for."""
        one = {"layer": {"kernel": jax.ShapeDtypeStruct((2, 2), jnp.float32)}}

        def update(params: Any) -> Any:
            transform = self.transform(optax.constant_schedule(0.1))
            return transform.update(params, transform.init(params), params)

        try:
            jax.eval_shape(update, one)
        except Exception as error:  # Optax raises whatever it likes
            text = next(iter(str(error).splitlines()), "")
            raise ValueError(
                f"method: optax.{self.method} cannot be used with these options ({text}); change "
                "them, or take another optimizer."
            ) from error

    def transform(
        self, rate: optax.Schedule, share: Share = everywhere
    ) -> optax.GradientTransformation:
        """Gradients to updates; `share` is that of the weight decay: 1, or 0 for none."""
        arguments: dict[str, Any] = dict(self.options)
        if "weight_decay" in _parameters_of(self.method):
            arguments |= {"weight_decay": self.weight_decay}
        if "mask" in _parameters_of(self.method):
            arguments |= {"mask": partial(jax.tree_util.tree_map_with_path, self._decays(share))}
        found: optax.GradientTransformation = _function(self.method)(rate, **arguments)
        return found

    def _decays(self, share: Share) -> Callable[[Any, Array], bool]:
        def decays(keys: Any, parameter: Array) -> bool:
            path = path_of(keys)
            part = share(path)
            if part not in (0.0, 1.0):
                raise ValueError(
                    f"decay: {part} cannot work for {path}, since optax.{self.method} decays all "
                    "alike; give 0 or 1."
                )
            return part == 1.0 and (self.decay == "all" or is_kernel(path, parameter))

        return decays


Optimizer = SGD | AdamW | DOT | Optax | Descent
"""Every optimizer; the last stands for those that are not ours."""


def _function(name: str) -> Callable[..., Any]:
    found: Callable[..., Any] = operator.attrgetter(name)(optax)
    return found


def _parameters_of(name: str) -> set[str]:
    """Of an optimizer of Optax; ValueError if it has none of that name."""
    if name not in _names():
        elsewhere = [known for known in _names() if known.endswith(f".{name}")]
        hint = f"did you mean {elsewhere[0]}?" if elsewhere else nearest(name, _names())
        raise ValueError(f"method: optax has no optimizer {name!r}; {hint}")
    return set(inspect.signature(_function(name)).parameters)


@cache
def _names() -> tuple[str, ...]:
    """Optimizers of Optax."""
    spaces = (("", optax), ("contrib.", optax.contrib))
    return tuple(
        f"{prefix}{name}"
        for prefix, space in spaces
        for name, found in vars(space).items()
        if not name.startswith(("_", "scale_by"))
        and inspect.isfunction(found)
        and "learning_rate" in inspect.signature(found).parameters
    )
