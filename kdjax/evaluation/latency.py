"""How long networks take to answer, on the device at hand."""

import statistics
import time
from collections.abc import Callable, Mapping
from functools import partial

import jax
import numpy as np

from kdjax.evaluation.load import Loaded
from kdjax.models import Model, infer
from kdjax.types import Outputs, Variables

BATCHES = (1, 64)
"""Batch sizes measured: one image as in a service, many as in a queue."""


def latency_ms(networks: Mapping[str, Loaded], rounds: int = 50) -> dict[str, dict[str, float]]:
    """Median milliseconds of a batch by network and batch size, from pixels to logits, both on
    the device.

    The networks take turns, so that a busy machine slows all of them alike.
    """
    result: dict[str, dict[str, float]] = {name: {} for name in networks}
    for size in BATCHES:
        calls = {name: _call(network, size) for name, network in networks.items()}
        times: dict[str, list[float]] = {name: [] for name in networks}
        for _ in range(rounds):
            for name, call in calls.items():
                began = time.perf_counter()
                call()
                times[name].append(1000 * (time.perf_counter() - began))
        for name, measured in times.items():
            result[name][str(size)] = statistics.median(measured)
    return result


@partial(jax.jit, static_argnums=0)  # networks of one kind share a program
def _forward(model: Model, variables: Variables, images: jax.Array) -> Outputs:
    return infer(model, variables, images)


def _call(network: Loaded, size: int) -> Callable[[], jax.Array]:
    """One classification of `size` images, waited for; compiled before it is returned."""
    variables = jax.device_put(network.variables)
    images = jax.device_put(np.zeros((size, *network.info.shape), np.uint8))

    def call() -> jax.Array:
        return _forward(network.model, variables, images).logits.block_until_ready()

    call()
    return call
