"""All losses on the devices of several processes: `python -m tests.losses.across FOLDER`."""

import pickle
import sys
from pathlib import Path

import jax

from kdjax.experiment import Processes
from kdjax.training.processes import connect


def main(folder: Path) -> None:
    """Reads losses and their variables, `own`, and writes a file for each process."""
    connect(Processes())
    from tests.losses.support import of_all_losses  # after connecting: it uses a device at once

    found = of_all_losses(jax.device_count(), pickle.loads((folder / "own").read_bytes()))
    (folder / str(jax.process_index())).write_bytes(pickle.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
