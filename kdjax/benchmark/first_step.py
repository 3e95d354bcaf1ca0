"""Seconds from the start of a process to the end of its first training step.

A program of its own, `python -m kdjax.benchmark.first_step FOLDER SHAPE`, since a process that has
compiled before knows too much.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from kdjax.benchmark.subject import subject_of
from kdjax.experiment import Experiment
from kdjax.experiment.json import from_json, to_json


def first_step(experiment: Experiment, synthetic: tuple[int, int, int] | None) -> dict[str, float]:
    """In a process without any compiled program, and in the next."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "experiment.json").write_text(to_json(experiment))
        command = [sys.executable, "-m", __name__, folder, json.dumps(synthetic)]
        environment = {**os.environ, "XDG_CACHE_HOME": folder}
        return {name: _seconds(command, environment) for name in ("cold", "warm")}


def _seconds(command: list[str], environment: dict[str, str]) -> float:
    began = time.time()
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ValueError(f"the first step failed: {done.stderr.strip().splitlines()[-1]}")
    return float(done.stdout.splitlines()[-1]) - began


def main(folder: str, synthetic: str) -> None:
    """Make one step and print when it was done."""
    import jax

    from kdjax.training.parallel import set_up_compilation_cache
    from kdjax.training.step import make_train_step

    set_up_compilation_cache()
    text, shape = (Path(folder) / "experiment.json").read_text(), json.loads(synthetic)
    subject = subject_of(from_json(text, Experiment), tuple(shape) if shape else None)
    step = subject.devices.spread(make_train_step(subject.recipe), donate=True)
    jax.block_until_ready(step(subject.state(), subject.fixed, subject.batch()))
    print(time.time())


if __name__ == "__main__":
    main(*sys.argv[1:])
