"""Random numbers of networks: each example has its own, on whatever device and in whatever batch.

All of them come from layers `nn.Dropout`, in our networks and in others'. `learn` is the one place
that hands them out; elsewhere networks are deterministic.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import numpy as np
from jaxtyping import Array, Int

from kdjax.types import Outputs, Variables

STREAM = "kdjax"
"""Of Flax's random numbers. By the usual name, `dropout`, a network could draw for all examples of
a device at once, and the number of devices would change what it learns."""


class Draws(NamedTuple):
    """What the random numbers of a step are functions of."""

    key: Array
    """Of the step, the same on all devices."""
    example: Int[Array, " b"]
    """The index of each example of the batch."""
    view: Int[Array, " b"]
    """Which view of it is seen."""


def learn(
    model: nn.Module, variables: Variables, images: Array, draws: Draws | None
) -> tuple[Outputs, Variables]:
    """The forward pass in training mode, and the statistics it leaves.

    A layer draws by its place in the network and by (step, view, example). Without `draws` nothing
    is dropped. ValueError for a layer whose first axis is not that of the examples.
    """
    rngs = None if draws is None else {STREAM: draws.key}
    with nn.intercept_methods(_dropping(draws, len(images))):
        found: Any = model.apply(variables, images, train=True, mutable=["batch_stats"], rngs=rngs)
    return found


def dropout(x: Array, rate: float, train: bool, name: str) -> Array:
    """Each number is zero with probability `rate`, or divided by `1 - rate`, in training.

    So its expectation is itself (Srivastava et al., 2014, JMLR 15).
    """
    return nn.Dropout(rate, deterministic=not train, name=name)(x)


def drop_path(x: Array, rate: float, train: bool, name: str) -> Array:
    """The same for all numbers of an example at once: stochastic depth, where `x` is what a block
    adds to its input (Huang et al., 2016, arXiv:1603.09382)."""
    axes = tuple(range(1, x.ndim))
    return nn.Dropout(rate, axes, deterministic=not train, name=name)(x)


def linear_rates(last: float, blocks: int) -> list[float]:
    """Of `drop_path` in each block: from 0 in the first to `last` in the last, in equal steps."""
    rates: list[float] = np.linspace(0.0, last, blocks).tolist()
    return rates


def _dropping(draws: Draws | None, count: int) -> nn.module.Interceptor:
    def intercept(
        call: Callable[..., Any], arguments: Any, fields: Any, context: nn.module.InterceptorContext
    ) -> Any:
        layer = context.module
        if not isinstance(layer, nn.Dropout):
            return call(*arguments, **fields)
        x, off = _of_call(*arguments, **fields)
        if off or layer.deterministic or layer.rate == 0:
            return call(*arguments, **fields)
        _check_axes(layer, x, count)
        if draws is None:
            return x
        return _by_example(partial(call, deterministic=off), x, layer.make_rng(STREAM), draws)

    return intercept


def _of_call(inputs: Array, deterministic: bool | None = None, rng: Any = None) -> tuple[Any, ...]:
    """Arguments of `nn.Dropout.__call__`, as it takes them."""
    return inputs, deterministic


def _check_axes(layer: nn.Dropout, x: Array, count: int) -> None:
    shared = [axis % x.ndim for axis in layer.broadcast_dims]
    if len(x) != count or 0 in shared:
        where = "/".join(layer.path)
        raise ValueError(
            f"{where}: nn.Dropout of {list(x.shape)} cannot draw for each of {count} examples; let "
            "the first axis be theirs, and leave it out of broadcast_dims."
        )


def _by_example(call: Callable[..., Array], x: Array, key: Array, draws: Draws) -> Array:
    """A layer applied to each example by itself, with a key of its own."""

    def key_of(view: Array, example: Array) -> Array:
        return jax.random.fold_in(jax.random.fold_in(key, view), example)

    def one(x: Array, key: Array) -> Array:
        return call(x[None], rng=key)[0]

    return jax.vmap(one)(x, jax.vmap(key_of)(draws.view, draws.example))
