"""What every transform costs: images a second, alone, jitted, on one device.

    python benchmarks/augment.py benchmarks/augment-cpu.json

Random uint8 images through `augment`, keys and all: 512 of 32x32x3, and 64 of 224x224x3. All
transforms take turns, after a first call that compiles; the median of the turns counts. Those that
mix take the next example of the batch on the one device.
"""

import functools
import json
import os
import platform
import sys
import time
from collections.abc import Callable
from datetime import date
from importlib.metadata import version
from pathlib import Path

import jax
import numpy as np

from kdjax.data.augment import (
    Augmentation,
    AutoAugment,
    ColorJitter,
    CutMix,
    Cutout,
    Flip,
    Mixup,
    MixupOrCutMix,
    PadCrop,
    RandAugment,
    RandomErasing,
    RandomResizedCrop,
    ThreeAugment,
    TrivialAugment,
    augment,
)
from kdjax.types import AXIS, Batch

TRANSFORMS: dict[str, tuple[Augmentation, ...]] = {
    "PadCrop": (PadCrop(),),
    "Flip": (Flip(),),
    "PadCrop, Flip": (PadCrop(), Flip()),
    "RandomResizedCrop": (RandomResizedCrop(),),
    "Cutout": (Cutout(),),
    "RandomErasing": (RandomErasing(),),
    "RandomErasing, std 0.5": (RandomErasing(std=(0.5,)),),
    "RandAugment": (RandAugment(),),
    "TrivialAugment": (TrivialAugment(),),
    "AutoAugment": (AutoAugment(),),
    "ThreeAugment": (ThreeAugment(),),
    "ColorJitter": (ColorJitter(),),
    "ColorJitter, hue 0.1": (ColorJitter(hue=0.1),),
    "Mixup": (Mixup(),),
    "CutMix": (CutMix(),),
    "MixupOrCutMix": (MixupOrCutMix(),),
}
SIZES = ((512, 32), (64, 224))
TURNS = 15


def random_batch(count: int, side: int) -> Batch:
    rng = np.random.default_rng(0)
    zeros = np.zeros(count, np.int32)
    return Batch(
        image=rng.integers(0, 256, (count, side, side, 3), np.uint8),
        label=zeros,
        index=np.arange(count, dtype=np.int32),
        epoch=zeros,
        view=zeros,
        mask=np.ones(count, bool),
    )


def program(transforms: tuple[Augmentation, ...], batch: Batch) -> Callable[[], object]:
    """One device's share of a step, which is all of it."""
    whole = jax.device_put(jax.tree.map(lambda x: x[None], batch))
    seen = jax.jit(jax.vmap(functools.partial(augment, transforms, 0), axis_name=AXIS))
    return lambda: jax.block_until_ready(seen(whole).image)


def seconds(run: Callable[[], object]) -> float:
    began = time.perf_counter()
    run()
    return time.perf_counter() - began


def measure(count: int, side: int) -> dict[str, int]:
    """Images a second of every transform."""
    batch = random_batch(count, side)
    programs = [program(transforms, batch) for transforms in TRANSFORMS.values()]
    for run in programs:
        run()
    turns = np.median([[seconds(run) for run in programs] for _ in range(TURNS)], axis=0)
    return {name: round(count / turn) for name, turn in zip(TRANSFORMS, turns, strict=True)}


def about() -> dict[str, str | int]:
    return {
        "command": "python benchmarks/augment.py OUT",
        "date": date.today().isoformat(),
        "device": jax.devices()[0].device_kind,
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "python": platform.python_version(),
        "jax": version("jax"),
        "turns": TURNS,
    }


def main(output: str) -> None:
    result: dict[str, object] = {"about": about(), "unit": "images a second"}
    for count, side in SIZES:
        rates = measure(count, side)
        result[f"{count} of {side}x{side}x3"] = rates
        for name, rate in rates.items():
            print(f"{count} of {side}x{side}x3 | {name} | {rate:,}", flush=True)
        Path(output).write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main(sys.argv[1])
