"""A run directory for a network that was not trained in it: imported, cut, joined or split."""

from typing import Any

import jax.numpy as jnp

from kdjax.data.sources import DataInfo
from kdjax.experiment import Run
from kdjax.training.checkpoint import Checkpoints
from kdjax.training.run_directory import RunDirectory, locked
from kdjax.training.state import TrainState
from kdjax.types import Variables


def check_empty(directory: RunDirectory) -> None:
    """Raise ValueError if something is there already."""
    if directory.path.exists() and any(directory.path.iterdir()):
        raise ValueError(f"--out: {directory.path} is not empty; choose another, or delete it.")


def write_untrained(
    directory: RunDirectory, run: Run, info: DataInfo, variables: Variables
) -> None:
    """The network as the checkpoint of step 0 of a finished run."""
    check_empty(directory)
    state = TrainState(
        step=jnp.zeros((), jnp.int32),
        params={"student": variables["params"], "adapters": {}},
        stats={"student": variables.get("batch_stats", {}), "adapters": {}},
        frozen=variables.get("frozen", {}),
        memory={},
        scales=jnp.ones(1),  # of no term: Orbax 0.12.8 saves no empty array
        optimizer={},
        ema={},
    )
    kept: dict[str, Any] = {"step": 0, "epoch": 0.0, "metrics": {}}
    with locked(directory.path):
        directory.create(run, info)
        checkpoints = Checkpoints(directory.checkpoints, writes=True)
        try:
            checkpoints.save(state, {**kept, "seconds": 0.0}, {})
            checkpoints.wait()
        finally:
            checkpoints.close()
        directory.finish({"steps": 0, "seconds": 0.0, "latest": kept, "best": kept})
