"""What a device can do at most, measured beside what is compared with it."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp


def roof_programs(dtype: str) -> dict[str, Callable[[], Any]]:
    """A product of two square matrices and a copy, on the first device."""
    small = jax.default_backend() == "cpu"
    size, numbers = (1536, 2**25) if small else (8192, 2**28)
    a = jnp.ones((size, size), dtype)
    x = jnp.ones(numbers, jnp.float32)
    product, copy = jax.jit(jnp.matmul), jax.jit(lambda x: x + 1)
    return {"matmul": lambda: product(a, a), "copy": lambda: copy(x)}


def roof_work(dtype: str) -> dict[str, float]:
    """Operations of the product, and bytes that the copy reads and writes."""
    small = jax.default_backend() == "cpu"
    size, numbers = (1536, 2**25) if small else (8192, 2**28)
    return {"matmul": 2.0 * size**3, "copy": 8.0 * numbers}
