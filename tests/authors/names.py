"""Our parameters under authors' names and in their layouts."""

from typing import Any

import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from tests.authors.ours import Ours
from tests.torch_parity.inputs import draw


def theirs(ours: Ours, path: str) -> str:
    """The name of a parameter of ours."""
    if path in ours.names:
        return ours.names[path]
    layer, _, name = path.rpartition("/")
    return f"{ours.names[layer]}.{'bias' if name == 'bias' else 'weight'}"


def drawn(ours: Ours, shapes: Any) -> dict[str, Any]:
    """Parameters of these shapes, as `side.Own` fills theirs."""
    found = {}
    for path, leaf in flatten_dict(shapes, sep="/").items():
        shape = to_torch(ours, path, np.zeros(leaf.shape)).shape
        values = draw(theirs(ours, path), shape)
        found[path] = _from_torch(ours, path, values).reshape(leaf.shape)
    return unflatten_dict(found, sep="/")


def to_torch(ours: Ours, path: str, array: np.ndarray) -> np.ndarray:
    """A parameter of ours in their layout."""
    if array.ndim == 4 and _is_transposed(ours, path):
        return array[::-1, ::-1].transpose(2, 3, 0, 1)
    return array.transpose(3, 2, 0, 1) if array.ndim == 4 else array.T


def _from_torch(ours: Ours, path: str, array: np.ndarray) -> np.ndarray:
    if array.ndim == 4 and _is_transposed(ours, path):
        return array.transpose(2, 3, 0, 1)[::-1, ::-1]
    return array.transpose(2, 3, 1, 0) if array.ndim == 4 else array.T


def _is_transposed(ours: Ours, path: str) -> bool:
    return path.rpartition("/")[0] in ours.transposed
