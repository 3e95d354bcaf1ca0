"""Parts of a tree of parameters, by the paths of its leaves. Knows no phase."""

import math
from collections.abc import Callable, Mapping
from typing import Any

import jax

from kdjax.experiment.updates import path_of


def paths(tree: Any) -> list[str]:
    """Of all leaves: `student/stem/kernel`."""
    return [path_of(keys) for keys, _ in jax.tree_util.tree_leaves_with_path(tree)]


def kinds(tree: Any, skip: int = 0) -> Any:
    """Type and shape of each leaf, without so many first axes."""
    return jax.tree.map(lambda leaf: (leaf.dtype.name, leaf.shape[skip:]), tree)


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
