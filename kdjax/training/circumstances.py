"""What the last bits of a run depend on beside its config: versions, and the threads of a CPU."""

import os
import platform
from collections.abc import Mapping
from importlib.metadata import version

import jax

LIBRARIES = ("jax", "jaxlib", "flax", "optax", "numpy", "kdjax")


def circumstances() -> dict[str, str]:
    """Those of this process, by name."""
    found = {"python": platform.python_version(), **{name: version(name) for name in LIBRARIES}}
    if jax.default_backend() == "cpu":
        # XLA splits sums among its threads, which NPROC counts where it is set.
        found["threads"] = os.environ.get("NPROC") or str(os.cpu_count())
    return found


def changed(before: Mapping[str, str], now: Mapping[str, str]) -> str:
    """What differs, in words; empty if all is as it was: `jax 0.10.2 → 0.12.0`."""
    return ", ".join(
        f"{name} {before[name]} → {now[name]}"
        for name in now
        if name in before and before[name] != now[name]
    )
