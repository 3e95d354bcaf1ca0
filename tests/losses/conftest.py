"""How tests of losses compile."""

from collections.abc import Iterator

import jax
import pytest


@pytest.fixture
def optimized() -> Iterator[None]:
    """Programs as users have them: others round a little more, beyond 1e-5 in four places."""
    jax.config.update("jax_disable_most_optimizations", False)
    yield
    jax.config.update("jax_disable_most_optimizations", True)
