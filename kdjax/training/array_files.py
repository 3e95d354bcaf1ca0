"""Trees of host arrays as folders: the only file that knows Orbax. Knows no checkpoint.

Orbax meets the other processes of a job wherever it is not told that it is alone: some would wait
for others that never come.
"""

import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp


def write_arrays(folder: Path, items: Mapping[str, Any]) -> None:
    """A folder for each of the items, which are nested dictionaries of arrays, none of them empty.

    Raises whatever the storage raises.
    """
    together = folder.absolute() / "together"  # written at once, in a third of the time
    handler = ocp.CompositeCheckpointHandler(
        composite_options=ocp.CompositeOptions(multiprocessing_options=_alone())
    )
    trees = {name: ocp.args.PyTreeSave(tree) for name, tree in items.items()}
    with ocp.Checkpointer(handler, multiprocessing_options=_alone()) as checkpointer:
        checkpointer.save(together, args=ocp.args.Composite(**trees))
    for name in items:
        (together / name).rename(folder / name)
    shutil.rmtree(together)


def read_arrays(folder: Path) -> Any:
    """One item. Flipped bits come back without a word, or as any error."""
    handler = ocp.PyTreeCheckpointHandler(multiprocessing_options=_alone())
    with ocp.Checkpointer(handler, multiprocessing_options=_alone()) as checkpointer:
        tree = checkpointer.restore(folder.absolute(), args=ocp.args.PyTreeRestore())
    return jax.tree.map(np.asarray, tree)


def reason(error: Exception) -> str:
    """What the system said, without the paths before it and TensorStore's settings after it."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    line = next(iter(str(error).splitlines()), type(error).__name__)
    return re.split(r" \[\w+=", line, maxsplit=1)[0].rsplit(": ", 1)[-1]


def _alone() -> Any:
    here = jax.process_index()
    return ocp.options.MultiprocessingOptions(primary_host=here, active_processes={here})
