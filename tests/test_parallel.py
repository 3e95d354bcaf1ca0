"""How a function is compiled for all devices."""

import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax.training import parallel
from kdjax.training.parallel import Devices, fetch
from kdjax.types import AXIS, Batch


def weighted_sum(state, fixed, batch):
    del fixed
    return state * jax.lax.psum(batch.image.sum(), AXIS)


def called(devices):
    run = devices.spread(weighted_sum, donate=False)
    state = devices.replicate(np.float32(2.0))
    numbers = np.arange(8, dtype=np.float32)
    batch = Batch(numbers, *(numbers.astype(np.int32),) * 5)
    return fetch(run(state, None, devices.split(batch)))


@pytest.mark.parametrize("backend", ["pmap", "shard_map"])
@pytest.mark.parametrize("known", [True, False])
def test_an_option_that_xla_does_not_know_is_left_out(backend, known, monkeypatch):
    names = parallel.EIGEN if known else {"xla_cpu_an_option_of_another_year": "1"}
    monkeypatch.setattr(parallel, "EIGEN", names)
    parallel._compiler_options.cache_clear()
    try:
        assert called(Devices(backend, 4)) == 2 * 28
        assert parallel._compiler_options() == (names if known else {})
    finally:
        parallel._compiler_options.cache_clear()


def aligned(size):
    """Where JAX on a CPU takes over the memory of the host."""
    raw = np.zeros(4 * size + 64, np.uint8)
    start = -raw.ctypes.data % 64
    return raw[start : start + 4 * size].view(np.float32)


@pytest.mark.parametrize("backend", ["pmap", "shard_map"])
@pytest.mark.parametrize("count", [1, 4])
def test_a_buffer_may_be_filled_again_once_it_is_handed_over(backend, count):
    devices, buffer = Devices(backend, count), aligned(64)
    batch = devices.split(Batch(buffer, *(np.zeros(64, np.int32),) * 5))
    state = devices.replicate(buffer)
    buffer[:] = 1
    np.testing.assert_array_equal(batch.image, np.zeros((count, 64 // count)))
    np.testing.assert_array_equal(fetch(state), np.zeros(64))


def test_each_device_works_on_its_own_part():
    devices = Devices(count=4)
    run = devices.each(lambda fixed, batch: {"y": fixed * batch["x"] + jnp.arange(2.0)})
    found = run(devices.replicate(np.float32(2.0)), {"x": np.arange(8, dtype=np.float32)})
    np.testing.assert_array_equal(found["y"], 2 * np.arange(8) + np.tile([0, 1], 4))


def test_the_environment_changes_no_random_number():
    """Nor the width of any: other bits under the same seed would pass for the same run."""
    script = """if True:
        import jax
        from kdjax.training.parallel import Devices
        Devices()
        print(jax.random.uniform(jax.random.key(0), (3,)).tolist(), jax.numpy.arange(2.0).dtype)
        """
    other = {
        "JAX_DEFAULT_PRNG_IMPL": "rbg",
        "JAX_THREEFRY_PARTITIONABLE": "0",
        "JAX_ENABLE_X64": "1",
        "JAX_PLATFORMS": "cpu",
    }
    found = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, **other},
        cwd=Path(__file__).parent.parent,
        check=True,
        capture_output=True,
        text=True,
    )
    ours = jax.random.uniform(jax.random.key(0), (3,)).tolist()
    assert found.stdout.strip() == f"{ours} float32"
