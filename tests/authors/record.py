"""Ask authors' code for its numbers and keep them; needs torch, timm, SciPy and their checkouts.

KDJAX_CHECKOUTS=FOLDER python -m tests.authors.record [NAME …]
"""

import importlib
import pkgutil
import subprocess
import sys
from pathlib import Path

import numpy as np

from tests.authors import theirs
from tests.checkouts import commit

NUMBERS = Path(__file__).parent / "numbers"


def record(name: str) -> None:
    """Of all losses of one repository, in this process, which then knows its packages."""
    from tests.authors.side import without_gpu

    without_gpu()
    module = importlib.import_module(f"{theirs.__name__}.{name}")
    arrays = {
        f"{loss}/{key}": array
        for loss, code in module.LOSSES.items()
        for key, array in code.measured().items()
    }
    arrays = {key: x.astype("float32") if x.dtype == "float64" else x for key, x in arrays.items()}
    origin = f"{module.REPOSITORY}@{commit(module.REPOSITORY)}"
    np.savez_compressed(NUMBERS / f"{name}.npz", origin=origin, **arrays)
    print(f"{name:<16} {len(module.LOSSES):>2} losses  {origin}", flush=True)


def main(names: list[str]) -> None:
    """Each in a process of its own: repositories call their packages the same."""
    for name in names or [module.name for module in pkgutil.iter_modules(theirs.__path__)]:
        code = f"from tests.authors.record import record; record({name!r})"
        subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True)


if __name__ == "__main__":
    main(sys.argv[1:])
