"""All losses on all devices of all processes: `python -m tests.losses.across OWN OUT`, in each."""

import pickle
import sys
from pathlib import Path

import jax

from kdjax.experiment import Processes
from kdjax.training.parallel import set_up_compilation_cache
from kdjax.training.processes import connect


def main(own: str, out: str) -> None:
    """Reads losses and their variables; each process writes a file, OUT and its number."""
    set_up_compilation_cache()
    connect(Processes())
    from tests.losses.support import of_all_losses  # after connecting: it uses a device at once

    found = of_all_losses(jax.device_count(), pickle.loads(Path(own).read_bytes()))
    Path(f"{out}{jax.process_index()}").write_bytes(pickle.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
