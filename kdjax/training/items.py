"""Which part of a state is kept in which item of a checkpoint, for both directions. Knows no file.

- `student`: the network, nothing else; what evaluation and export read;
- `ema`: its moving average, where one is kept;
- `training`: the rest (optimizer, adapters), read by a resumed run only.
"""

import hashlib
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from kdjax.training.state import TrainState

Place = tuple[str, ...]
"""Where a leaf is: the names on the way to it."""

TABLE: tuple[tuple[Place, Place], ...] = (
    (("params", "student"), ("student", "params")),
    (("stats", "student"), ("student", "batch_stats")),
    (("frozen",), ("student", "frozen")),
    (("ema",), ("ema",)),
    ((), ("training",)),
)
"""A part of the state, and where it is kept: an item, and a place in it. The first match counts."""


def items_of(state: TrainState) -> dict[str, Any]:
    """The items of a fetched state, each of nested dictionaries of arrays."""
    items: dict[str, Any] = {}
    for place, leaf in _kept(state).items():
        *folders, name = place
        folder = items
        for part in folders:
            folder = folder.setdefault(part, {})
        folder[name] = np.asarray(leaf)
    return items


def state_of(items: Mapping[str, Any], target: TrainState, source: str) -> TrainState:
    """A state in the structure of `target`; ValueError names the first leaf that differs."""
    wanted, found = _kept(target), _flatten(items)
    needed = {item for item, *_ in wanted}
    if needed != items.keys():
        raise ValueError(f"{source} holds {sorted(items)}, but this run needs {sorted(needed)}.")
    for place in sorted(wanted.keys() | found.keys()):
        _check(f"{source}/{place[0]}: {'.'.join(place[1:])}", wanted.get(place), found.get(place))
    leaves, structure = jax.tree.flatten(target)
    places = map(_place_of, _flatten(target))
    filled = [
        found.get(place, np.zeros(leaf.shape, leaf.dtype))
        for place, leaf in zip(places, leaves, strict=True)
    ]
    return jax.tree.unflatten(structure, filled)


def digest(tree: Any) -> str:
    """SHA-256 of a tree's names, types, shapes and values."""
    sha = hashlib.sha256()
    named = {".".join(place): leaf for place, leaf in _flatten(tree).items()}
    for name in sorted(named):
        leaf = named[name]
        sha.update(f"{name} {leaf.dtype} {leaf.shape};".encode())
        sha.update(np.ascontiguousarray(leaf).tobytes())
    return sha.hexdigest()


def _check(where: str, wanted: Any, found: Any) -> None:
    if wanted is None or found is None:
        raise ValueError(f"{where} is {'unexpected' if wanted is None else 'missing'}.")
    if (found.shape, found.dtype) != (wanted.shape, wanted.dtype):
        raise ValueError(
            f"{where} is {found.dtype}{list(found.shape)}, "
            f"expected {wanted.dtype}{list(wanted.shape)}."
        )


def _kept(state: TrainState) -> dict[Place, Any]:
    """Its leaves, by where they are kept.

    Orbax 0.12.8 refuses empty arrays. Beside the network they are left out, since a shape says all
    about them.
    """
    kept = {_place_of(place): leaf for place, leaf in _flatten(state).items()}
    return {
        place: leaf for place, leaf in kept.items() if place[0] != "training" or np.size(leaf) > 0
    }


def _place_of(place: Place) -> Place:
    """Where a leaf of the state is kept."""
    matches = (kept + place[len(part) :] for part, kept in TABLE if place[: len(part)] == part)
    return next(matches)


def _flatten(tree: Any) -> dict[Place, Any]:
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {
        tuple(jax.tree_util.keystr((key,), simple=True) for key in path): leaf
        for path, leaf in leaves
    }
