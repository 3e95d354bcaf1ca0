"""How long a network takes to answer, on the device at hand."""

import statistics
import time

import jax
import numpy as np

from kdjax.evaluation.load import Loaded
from kdjax.models import infer

BATCHES = (1, 64)
"""Batch sizes measured: one image as in a service, many as in a queue."""


def latency_ms(network: Loaded, repeats: int = 30) -> dict[str, float]:
    """Median milliseconds for a batch, by batch size, from pixels on the device to logits there."""
    return {str(size): _median_ms(network, size, repeats) for size in BATCHES}


def _median_ms(network: Loaded, size: int, repeats: int) -> float:
    model = network.model
    forward = jax.jit(lambda v, x: infer(model, v, x).logits)
    variables = jax.device_put(network.variables)
    images = jax.device_put(np.zeros((size, *network.info.shape), np.uint8))
    forward(variables, images).block_until_ready()
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        forward(variables, images).block_until_ready()
        times.append(1000 * (time.perf_counter() - began))
    return statistics.median(times)
