"""A run directory for a network that was not trained in it: imported, cut, joined or split."""

from contextlib import closing

import jax.numpy as jnp

from kdjax.data.sources import DataInfo
from kdjax.experiment import Run
from kdjax.training.checkpoint_writer import CheckpointWriter
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
        scales=jnp.ones(0),
        optimizer={},
        ema={},
    )
    with locked(directory.path):
        directory.create(run, info)
        with closing(CheckpointWriter(directory.checkpoints)) as writer:
            writer.save(state, {"epoch": 0.0, "seconds": 0.0}, {})
        kept = {"step": 0, "epoch": 0.0, "metrics": {}}
        directory.finish({"steps": 0, "seconds": 0.0, "latest": kept, "best": kept})
