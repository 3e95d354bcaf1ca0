"""Training steps on a CPU before and after the forms of `kdjax.models.kernels`, interleaved.

    python benchmarks/kernels.py benchmarks/kernels-cpu.json [ROUNDS]

Milliseconds: medians by the clock and of the processor. *Eigen*: with Eigen's convolutions.
"""

import json
import os
import platform
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from importlib.metadata import version
from pathlib import Path
from unittest import mock

import flax.linen as nn
import jax
import numpy as np
from jaxtyping import Array
from kd_step import SMALL, Pair, distillation_step, named, random_batch, seconds

from kdjax.models import base, small_cnn
from kdjax.training.parallel import EIGEN

CIFAR = (64, (32, 32, 3))
PAIRS = {
    "WRN-40-2 -> WRN-16-2": named("wrn_40_2", "wrn_16_2", *CIFAR),
    "SmallCNN 28x28": Pair(*SMALL, 256, (28, 28, 1)),
    "SmallCNN 8x8": Pair(*SMALL, 128, (8, 8, 1)),
    "WRN-40-2 -> mobilenet_v2_half": named("wrn_40_2", "mobilenet_v2_half", *CIFAR),
    "WRN-40-2 -> shuffle_v2": named("wrn_40_2", "shuffle_v2", *CIFAR),
}


def pool(x: Array, size: int) -> Array:
    return nn.max_pool(x, (size, size), strides=(size, size))


@contextmanager
def plain() -> Iterator[None]:
    """As Flax and XLA have it."""
    with (
        mock.patch.object(base, "BatchNorm", nn.BatchNorm),
        mock.patch.object(base, "convolution", jax.lax.conv_general_dilated),
        mock.patch.object(small_cnn, "max_pool", pool),
    ):
        yield


def compare(pair: Pair, rounds: int) -> dict[str, dict[str, float]]:
    batch, steps = random_batch(pair), {}
    for name, options in (("", None), (", Eigen", EIGEN)):
        with plain():
            steps[f"plain{name}"] = distillation_step(pair, batch, options)
        steps[f"kernels{name}"] = distillation_step(pair, batch, options)
    rows = {}
    for name, times in seconds(steps, rounds).items():
        clock, processor = (round(1e3 * float(x), 2) for x in np.median(times, axis=0))
        rows[name] = {"milliseconds": clock, "processor_milliseconds": processor}
    return rows


def main(output: str, rounds: str = "9") -> None:
    about = {
        "command": "python benchmarks/kernels.py OUT",
        "date": date.today().isoformat(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        **{library: version(library) for library in ("jax", "flax")},
        "rounds": int(rounds),
    }
    found = {}
    for name, pair in PAIRS.items():
        rows = compare(pair, int(rounds))
        found[name] = {"batch": pair.batch, "load": round(os.getloadavg()[0], 2), "steps": rows}
        print(name, found[name], flush=True)
        Path(output).write_text(json.dumps({"about": about, "pairs": found}, indent=1) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
