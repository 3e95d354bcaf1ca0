"""Which examples an epoch has: each once, or drawn with classes made more alike."""

from collections.abc import Callable
from typing import Literal, get_args

import numpy as np

from kdjax.data.sources import Source

Sampling = Literal["instance", "square_root", "class"]
"""Classes are as likely as they are large; as the square root of that; all alike."""
SAMPLINGS: tuple[Sampling, ...] = get_args(Sampling)

Order = Callable[[int], np.ndarray]
"""From an epoch to the indices of its examples, as many as there are."""


def order_of(source: Source, seed: int, sampling: Sampling) -> Order:
    """The examples of each epoch, a function of (seed, epoch).

    `instance`: a permutation. Else as many draws with replacement (Kang et al., 2020,
    arXiv:1910.09217), with `class` from all classes equally often, with `square_root` in proportion
    to the square roots of their sizes; all labels are read first.
    """
    examples = len(source)
    if sampling == "instance":
        return lambda epoch: _random(seed, epoch).permutation(examples)
    below = _cumulative(source.labels, sampling)
    return lambda epoch: below.searchsorted(_random(seed, epoch).random(examples), side="right")


def _random(seed: int, epoch: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(key=[seed, epoch]))


def class_shares(sizes: np.ndarray, sampling: Sampling) -> np.ndarray:
    """Of the draws, by class; one without examples is never drawn."""
    parts = sizes ** {"instance": 1.0, "square_root": 0.5, "class": 0.0}[sampling] * (sizes > 0)
    return parts / parts.sum()


def _cumulative(labels: np.ndarray, sampling: Sampling) -> np.ndarray:
    """The distribution function of the examples, in their order."""
    sizes = np.bincount(labels)
    of_one = class_shares(sizes, sampling) / np.maximum(sizes, 1)
    sums = np.cumsum(of_one[labels])
    return sums / sums[-1]
