"""What both sides of a comparison with PyTorch get: weights drawn by name, and noise."""

import math
import zlib

import numpy as np

CLASSES = 7
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SAMPLES = 8
"""Values of each feature map that are compared one by one."""


def draw(key: str, shape: tuple[int, ...]) -> np.ndarray:
    """A PyTorch array, a function of its name: large enough that every layer matters."""
    rng = np.random.default_rng(zlib.crc32(key.encode()))
    if key.endswith("running_var"):
        return rng.uniform(0.5, 1.5, shape).astype(np.float32)
    if key.endswith(("running_mean", "bias")):
        return rng.normal(0, 0.1, shape).astype(np.float32)
    if len(shape) < 2:  # the scale of a normalisation layer
        return rng.uniform(0.5, 1.5, shape).astype(np.float32)
    fan_in = math.prod(shape[1:])
    return rng.normal(0, math.sqrt(2 / fan_in), shape).astype(np.float32)


def images(size: int) -> np.ndarray:
    """Two uint8 images `[2, size, size, 3]`."""
    return np.random.default_rng(0).integers(0, 256, (2, size, size, 3), np.uint8)


def sample(feature: np.ndarray) -> list[float]:
    """Mean, standard deviation, and some values of a map in `[n, H, W, C]`, spread over it."""
    flat = np.asarray(feature, np.float64).reshape(-1)
    places = np.linspace(0, flat.size - 1, SAMPLES).astype(int)
    return [float(flat.mean()), float(flat.std()), *map(float, flat[places])]
