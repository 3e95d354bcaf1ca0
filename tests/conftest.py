"""Eight fake CPU devices for every test, and the checks that only tests pay for."""

import gc
import os

gc.set_threshold(50_000, 20, 20)  # traces are large heaps of what stays; looking through them costs

# XLA's thread pool must hold a collective of eight devices on a machine with two cores.
os.environ.setdefault("NPROC", "16")

from pathlib import Path

import jax
import pytest
from jaxtyping import install_import_hook

import tests.typechecking  # noqa: F401  the hook below looks it up

# Tests compile the same small programs over and over; so do the processes they start.
os.environ["XDG_CACHE_HOME"] = str(Path(__file__).parent.parent / ".pytest_cache")
jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_disable_most_optimizations", True)  # tests compile more than they compute
install_import_hook("kdjax", "tests.typechecking.typechecked")

from kdjax.training.parallel import set_up_compilation_cache

set_up_compilation_cache()

SPLITS = {"train": "train", "validation": "validation", "test": "test"}


MOST_MAPS = 30_000
"""Maps of memory at which programs are forgotten; with some 65,000 a process dies."""


@pytest.fixture(scope="module", autouse=True)
def forget_programs():
    """Each program holds maps of memory; but whoever forgets has to trace and compile again."""
    yield
    if len(Path("/proc/self/maps").read_bytes().splitlines()) > MOST_MAPS:
        jax.clear_caches()
        gc.collect()


@pytest.fixture(scope="session")
def data_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where this test process keeps its data sets."""
    return tmp_path_factory.mktemp("tfds")


@pytest.fixture(scope="session")
def digits(data_directory: Path):
    """The prepared digits."""
    from kdjax.data.sources import DataSet

    return DataSet("digits", str(data_directory), SPLITS)


@pytest.fixture
def tiny(data_directory: Path):
    """A builder of small experiments: `tiny(epochs=2)` changes fields of both fits."""
    from tests.support import tiny_experiment

    return lambda **fit: tiny_experiment(data_directory, **fit)
