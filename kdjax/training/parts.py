"""Parts of a tree of parameters, by the paths of its leaves. Knows no phase."""

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax


def paths(tree: Mapping[str, Any], above: str = "") -> Iterator[str]:
    """Of all leaves: `student/stem/kernel`."""
    for name, below in tree.items():
        here = f"{above}/{name}" if above else name
        if isinstance(below, Mapping):
            yield from paths(below, here)
        else:
            yield here


def part(tree: Mapping[str, Any], wanted: Callable[[str], bool], above: str = "") -> dict[str, Any]:
    """The leaves whose paths are wanted, in the dictionaries they were in, which all stay."""
    kept = {}
    for name, below in tree.items():
        here = f"{above}/{name}" if above else name
        if isinstance(below, Mapping):
            kept[name] = part(below, wanted, here)
        elif wanted(here):
            kept[name] = below
    return kept


def merged(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    """Two parts of one tree put together again; of a leaf that is in both, the other's."""
    both = dict(one)
    for name, below in other.items():
        deeper = isinstance(below, Mapping) and name in one
        both[name] = merged(one[name], below) if deeper else below
    return both


def count_of(tree: Any) -> int:
    """How many numbers the arrays of a tree have."""
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree))
