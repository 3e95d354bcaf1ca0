"""Random operations, one after the other: AutoAugment and what came after it."""

from dataclasses import dataclass
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from kdjax.checks import require
from kdjax.data.augment.base import Shape, Transform
from kdjax.data.augment.operations import Operation, Ranges, in_turn, operation, table

NAMES = (
    *("Identity", "ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate", "Brightness"),
    *("Color", "Contrast", "Sharpness", "Posterize", "Solarize", "AutoContrast", "Equalize"),
)
"""The operations of RandAugment and TrivialAugment."""
SIGNS = (1, -1)
STRONGEST = 30
"""Magnitudes are whole numbers up to here."""
WIDE = Ranges(shear=0.99, shift=32.0, degrees=135.0, enhance=0.99, bits=6)
"""The wide space of TrivialAugment."""

Pairs = tuple[tuple[tuple[str, float, int], ...], ...]
"""Of operations, how often each is done, and its magnitude of 0 to 9."""

CIFAR: Pairs = (
    (("Invert", 0.1, 0), ("Contrast", 0.2, 6)),
    (("Rotate", 0.7, 2), ("TranslateX", 0.3, 9)),
    (("Sharpness", 0.8, 1), ("Sharpness", 0.9, 3)),
    (("ShearY", 0.5, 8), ("TranslateY", 0.7, 9)),
    (("AutoContrast", 0.5, 0), ("Equalize", 0.9, 0)),
    (("ShearY", 0.2, 7), ("Posterize", 0.3, 7)),
    (("Color", 0.4, 3), ("Brightness", 0.6, 7)),
    (("Sharpness", 0.3, 9), ("Brightness", 0.7, 9)),
    (("Equalize", 0.6, 0), ("Equalize", 0.5, 0)),
    (("Contrast", 0.6, 7), ("Sharpness", 0.6, 5)),
    (("Color", 0.7, 7), ("TranslateX", 0.5, 8)),
    (("Equalize", 0.3, 0), ("AutoContrast", 0.4, 0)),
    (("TranslateY", 0.4, 3), ("Sharpness", 0.2, 6)),
    (("Brightness", 0.9, 6), ("Color", 0.2, 8)),
    (("Solarize", 0.5, 2), ("Invert", 0.0, 0)),
    (("Equalize", 0.2, 0), ("AutoContrast", 0.6, 0)),
    (("Equalize", 0.2, 0), ("Equalize", 0.6, 0)),
    (("Color", 0.9, 9), ("Equalize", 0.6, 0)),
    (("AutoContrast", 0.8, 0), ("Solarize", 0.2, 8)),
    (("Brightness", 0.1, 3), ("Color", 0.7, 0)),
    (("Solarize", 0.4, 5), ("AutoContrast", 0.9, 0)),
    (("TranslateY", 0.9, 9), ("TranslateY", 0.7, 9)),
    (("AutoContrast", 0.9, 0), ("Solarize", 0.8, 3)),
    (("Equalize", 0.8, 0), ("Invert", 0.1, 0)),
    (("TranslateY", 0.7, 9), ("AutoContrast", 0.9, 0)),
)
IMAGENET: Pairs = (
    (("Posterize", 0.4, 8), ("Rotate", 0.6, 9)),
    (("Solarize", 0.6, 5), ("AutoContrast", 0.6, 0)),
    (("Equalize", 0.8, 0), ("Equalize", 0.6, 0)),
    (("Posterize", 0.6, 7), ("Posterize", 0.6, 6)),
    (("Equalize", 0.4, 0), ("Solarize", 0.2, 4)),
    (("Equalize", 0.4, 0), ("Rotate", 0.8, 8)),
    (("Solarize", 0.6, 3), ("Equalize", 0.6, 0)),
    (("Posterize", 0.8, 5), ("Equalize", 1.0, 0)),
    (("Rotate", 0.2, 3), ("Solarize", 0.6, 8)),
    (("Equalize", 0.6, 0), ("Posterize", 0.4, 6)),
    (("Rotate", 0.8, 8), ("Color", 0.4, 0)),
    (("Rotate", 0.4, 9), ("Equalize", 0.6, 0)),
    (("Equalize", 0.0, 0), ("Equalize", 0.8, 0)),
    (("Invert", 0.6, 0), ("Equalize", 1.0, 0)),
    (("Color", 0.6, 4), ("Contrast", 1.0, 8)),
    (("Rotate", 0.8, 8), ("Color", 1.0, 2)),
    (("Color", 0.8, 8), ("Solarize", 0.8, 7)),
    (("Sharpness", 0.4, 7), ("Invert", 0.6, 0)),
    (("ShearX", 0.6, 5), ("Equalize", 1.0, 0)),
    (("Color", 0.4, 0), ("Equalize", 0.6, 0)),
    (("Equalize", 0.4, 0), ("Solarize", 0.2, 4)),
    (("Solarize", 0.6, 5), ("AutoContrast", 0.6, 0)),
    (("Invert", 0.6, 0), ("Equalize", 1.0, 0)),
    (("Color", 0.6, 4), ("Contrast", 1.0, 8)),
    (("Equalize", 0.8, 0), ("Equalize", 0.6, 0)),
)
POLICIES = {"cifar10": CIFAR, "imagenet": IMAGENET}


class Policy(Transform):
    """Nearest pixels, and black for what comes from outside; grey or colour, uint8."""

    def check_shape(self, shape: Shape) -> None:
        """Operations know grey images and colour images."""
        known = "1 or 3 for operations on light and colour"
        require("channels", shape[2], shape[2] in (1, 3), known)


@dataclass(frozen=True, kw_only=True)
class RandAugment(Policy):
    """Random operations of one strength (Cubuk et al., 2020, arXiv:1909.13719).

    Each is one of 14, all with the same chance; shears, shifts, rotations and blends go either way.
    Ranges and magnitudes are torchvision's.
    """

    num_ops: int = 2
    """Operations, one after the other."""
    magnitude: int = 9
    """Of all of them, 0 to 30."""

    def __call__(self, key: Array, image: Array) -> Array:
        """`[H, W, C]` to the same shape."""
        level, shape = self.magnitude / STRONGEST, image.shape
        rows = table([operation(name, level, sign, shape) for name in NAMES for sign in SIGNS])
        return in_turn(image, rows, jax.random.randint(key, (self.num_ops,), 0, len(rows.factor)))

    def check(self) -> None:
        """There is an operation, and its magnitude means something."""
        require("num_ops", self.num_ops, self.num_ops >= 1, "at least 1")
        known = 0 <= self.magnitude <= STRONGEST
        require("magnitude", self.magnitude, known, f"from 0 to {STRONGEST}")


@dataclass(frozen=True, kw_only=True)
class TrivialAugment(Policy):
    """One random operation of a random strength (Müller and Hutter, 2021, arXiv:2103.10158).

    The operations of `RandAugment` in the paper's wide ranges, with 31 magnitudes: torchvision's
    `TrivialAugmentWide`.
    """

    def __call__(self, key: Array, image: Array) -> Array:
        """`[H, W, C]` to the same shape."""
        levels = np.linspace(0, 1, STRONGEST + 1)
        rows = [
            operation(name, level, sign, image.shape, WIDE)
            for name in NAMES
            for level in levels
            for sign in SIGNS
        ]
        return in_turn(image, table(rows), jax.random.randint(key, (1,), 0, len(rows)))


@dataclass(frozen=True, kw_only=True)
class AutoAugment(Policy):
    """A random pair of operations of a policy that was found for a data set (Cubuk et al., 2019).

    The paper is arXiv:1805.09501. Of 25 pairs all have the same chance, each of the two operations
    is done with a probability of its own, and shears, shifts, rotations and blends go either way.
    Policies, ranges and magnitudes are torchvision's.
    """

    policy: Literal["cifar10", "imagenet"] = "cifar10"
    """The data set that it was found for."""

    def __call__(self, key: Array, image: Array) -> Array:
        """`[H, W, C]` to the same shape."""
        of_pair, of_whether, of_sign = jax.random.split(key, 3)
        pairs = POLICIES[self.policy]
        pair = jax.random.randint(of_pair, (), 0, len(pairs))
        done = jax.random.uniform(of_whether, (2,))
        sign = jax.random.randint(of_sign, (2,), 0, len(SIGNS))
        rows = _rows(pairs, image.shape)
        chosen = (2 * pair + jnp.arange(2)) * len(SIGNS) + sign
        probabilities = jnp.asarray([[p for _, p, _ in steps] for steps in pairs])
        indices = jnp.where(done < probabilities[pair], chosen, len(rows))
        return in_turn(image, table([*rows, Operation()]), indices)


def _rows(pairs: Pairs, shape: tuple[int, ...]) -> list[Operation]:
    """Of each pair both operations, either way: the last index is the sign's."""
    return [
        operation(name, magnitude / 9, way, shape)
        for steps in pairs
        for name, _, magnitude in steps
        for way in SIGNS
    ]
