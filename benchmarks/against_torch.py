"""Training steps of kdjax beside PyTorch's, interleaved in one process on a CPU.

    python benchmarks/against_torch.py benchmarks/cpu-against-torch.json [ROUNDS]

Needs PyTorch. Through `make_train_step` and `Devices.spread`, with XLA's own choice of
convolutions (`kdjax`) and with Eigen's (`kdjax, Eigen`), against `torch_side.py`.
Of every program: medians of the clock and of the processor. `of_channels_last` is PyTorch's
channels_last time over this one's: above 1 is faster than PyTorch.
"""

import json
import os
import platform
import sys
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch_side
from kd_step import SMALL, Pair, Step, distillation_step, named, random_batch, seconds

from kdjax.models import WideResNet
from kdjax.training.parallel import EIGEN
from kdjax.types import Batch

PAIRS = {
    "WRN-40-2 -> WRN-16-2": named("wrn_40_2", "wrn_16_2", 64, (32, 32, 3)),
    "SmallCNN 28x28": Pair(*SMALL, 256, (28, 28, 1)),
    "SmallCNN 8x8": Pair(*SMALL, 128, (8, 8, 1)),
}


def theirs(pair: Pair, batch: Batch, form: torch_side.Form) -> Step:
    def network(model: Any) -> torch.nn.Module:
        if isinstance(model, WideResNet):
            return torch_side.WideResNet(model.blocks, model.widths, model.num_classes)
        return torch_side.SmallCNN(model.widths, model.hidden, model.num_classes, pair.shape)

    teacher, student = map(network, pair[:2])
    return torch_side.make_step(teacher, student, batch.image, batch.label, form)


def programs(pair: Pair) -> dict[str, Step]:
    batch = random_batch(pair)
    made = {
        "kdjax": distillation_step(pair, batch, None),
        "kdjax, Eigen": distillation_step(pair, batch, EIGEN),
    }
    for form in torch_side.FORMS:
        try:
            step = theirs(pair, batch, form)
            step()
        except Exception as error:
            print(f"torch, {form}: left out, {type(error).__name__}")
        else:
            made[f"torch, {form}"] = step
    return made


def compare(pair: Pair, rounds: int) -> dict[str, dict[str, float]]:
    times_of = seconds(programs(pair), rounds)
    medians = {name: np.median(times, axis=0) for name, times in times_of.items()}
    least = {name: np.min(times, axis=0)[0] for name, times in times_of.items()}
    base = medians["torch, channels_last"]
    return {
        name: {
            "milliseconds": round(1e3 * float(clock), 2),
            "least_milliseconds": round(1e3 * float(least[name]), 2),
            "processor_milliseconds": round(1e3 * float(processor), 2),
            "images_per_second": round(pair.batch / float(clock), 1),
            "of_channels_last": round(float(base[0] / clock), 3),
            "of_channels_last_processor": round(float(base[1] / processor), 3),
        }
        for name, (clock, processor) in medians.items()
    }


def about(rounds: int) -> dict[str, Any]:
    return {
        "command": "python benchmarks/against_torch.py OUT",
        "date": date.today().isoformat(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "python": platform.python_version(),
        **{library: version(library) for library in ("jax", "flax", "torch")},
        "threads": torch.get_num_threads(),
        "rounds": rounds,
    }


def main(output: str, rounds: str = "15") -> None:
    torch.set_num_threads(os.cpu_count() or 1)
    found = {}
    for name, pair in PAIRS.items():
        rows = compare(pair, int(rounds) if pair.batch == 64 else 5 * int(rounds))
        found[name] = {"batch": pair.batch, "load": round(os.getloadavg()[0], 2), "steps": rows}
        print(name, f"load {found[name]['load']}")
        for program, row in rows.items():
            print(f"  {program:22}", *(f"{key} {value}" for key, value in row.items()), flush=True)
        Path(output).write_text(
            json.dumps({"about": about(int(rounds)), "pairs": found}, indent=1) + "\n"
        )


if __name__ == "__main__":
    main(*sys.argv[1:])
