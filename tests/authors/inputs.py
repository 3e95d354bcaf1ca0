"""What both sides of a comparison with authors' code get: outputs and weights drawn by name."""

import zlib

import numpy as np

EXAMPLES, CLASSES = 8, 10
SIZES = (8, 4, 2)
"""Height and width of the three stages."""
WIDTHS = {"student": (4, 6, 8), "teacher": (6, 10, 12), "twin": (4, 6, 8), "large": (6, 10, 12)}
"""Channels of the three stages: of the student, and of teachers that are otherwise like it, have
its widths too, or are twice as large."""
MEAN, STD = (0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761)
ENOUGH = 256
"""Values of an array that are kept and compared."""


def normal(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Numbers of deviation one, a function of the name."""
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    return rng.standard_normal(shape).astype(np.float32)


def labels(classes: int = CLASSES) -> np.ndarray:
    """Two neighbours share one."""
    return (1 + 3 * (np.arange(EXAMPLES) // 2)) % classes


def images() -> np.ndarray:
    """uint8 `[n, 32, 32, 3]`, for networks."""
    return np.random.default_rng(0).integers(0, 256, (EXAMPLES, 32, 32, 3), np.uint8)


def outputs(who: str, classes: int = CLASSES) -> dict[str, np.ndarray]:
    """`stage1` and `before/stage1` in `[n, H, W, C]`, and so on, `embedding` and `logits`.

    As in a CNN a stage is what ReLU leaves of its preactivation, and the embedding the mean of the
    last one.
    """
    scale = 2 if who == "large" else 1
    found: dict[str, np.ndarray] = {}
    for i, (size, width) in enumerate(zip(SIZES, WIDTHS[who], strict=True), start=1):
        shape = (EXAMPLES, scale * size, scale * size, width)
        before = normal(f"{who}/stage{i}", shape) + np.float32(0.3)
        found |= {f"before/stage{i}": before, f"stage{i}": np.maximum(before, 0)}
    found["embedding"] = found["stage3"].mean(axis=(1, 2))
    return found | {"logits": 2 * normal(f"{who}/logits", (EXAMPLES, classes))}


def thinned(array: np.ndarray) -> np.ndarray:
    """At most `ENOUGH` of its values, spread over it."""
    flat = np.asarray(array).reshape(-1)
    return flat[np.linspace(0, flat.size - 1, min(flat.size, ENOUGH)).astype(int)]
