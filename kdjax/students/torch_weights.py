"""Networks from PyTorch files, and back: names, layouts and nothing else.

Works on names and NumPy arrays; must not know any one family, torch, or how a file is read. Every
network says itself what published files call its layers (`VisionModel.torch_names`).
"""

import difflib
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from kdjax.models import Model
from kdjax.models.base import Naming
from kdjax.models.summary import Shape, variable_shapes
from kdjax.types import Variables

Tensors = Mapping[str, np.ndarray]
"""A PyTorch state dictionary as NumPy arrays."""

PREFIXES = ("module.", "model.", "_orig_mod.", "state_dict.", "backbone.")
"""What wrappers (data parallelism, compilation, Lightning) put before every name."""

LEAVES = {"kernel": "weight", "scale": "weight", "mean": "running_mean", "var": "running_var"}
"""Our last part of a name, and theirs; other names are the same in both."""

IGNORED = ("num_batches_tracked", "total_ops", "total_params")
"""Counters that are not weights."""


class Slot(NamedTuple):
    """One array of ours and where it lies in a PyTorch file."""

    path: tuple[str, ...]
    """Collection, layers, leaf."""
    shape: tuple[int, ...]
    """In our layout."""
    key: str
    """Their name."""

    @property
    def torch_shape(self) -> tuple[int, ...]:
        """In their layout."""
        return _to_torch(np.broadcast_to(np.float32(0), self.shape), self.path).shape


class Mismatch(ValueError):
    """A file that does not fit a network; `rows` say why, one problem each."""

    def __init__(self, summary: str, rows: list[tuple[str, str, str]]) -> None:
        super().__init__(summary)
        self.rows = rows
        """What is wrong (missing, unexpected, shape), the name, and a hint."""


def from_torch(model: Model, tensors: Tensors, shape: Shape) -> dict[str, Any]:
    """The variables of `model` for images of `shape`, filled from a PyTorch state dictionary.

    Convolutions go from `[O, I, H, W]` to `[H, W, I, O]`, matrices are transposed, and what reads a
    flattened map goes from `(C, H, W)` to `(H, W, C)`. Raises `Mismatch` unless every array of the
    network is there, in its shape and finite, and nothing else is.
    """
    tensors = _without_wrapping(tensors)
    known = [slots(model, shape, naming) for naming in model.torch_names()]
    if not known:
        raise ValueError(f"{type(model).__name__} has no PyTorch counterpart to import from.")
    best = max(known, key=lambda found: sum(slot.key in tensors for slot in found))
    problems = _problems(best, tensors)
    if problems:
        raise Mismatch(_summary(model, problems), problems)
    variables: dict[str, Any] = {}
    for slot in best:
        *parents, leaf = slot.path
        node = variables
        for name in parents:
            node = node.setdefault(name, {})
        node[leaf] = _from_torch(np.asarray(tensors[slot.key]), slot)
    return variables


def to_torch(
    model: Model, variables: Variables, shape: Shape, naming: Naming | None = None
) -> dict[str, np.ndarray]:
    """The inverse of `from_torch`, under `naming` or the first of the model's namings."""
    if not model.torch_names():
        raise ValueError(f"{type(model).__name__} has no PyTorch counterpart to export to.")
    tensors = {}
    for slot in slots(model, shape, naming or model.torch_names()[0]):
        leaf: Any = variables
        for name in slot.path:
            leaf = leaf[name]
        tensors[slot.key] = np.ascontiguousarray(_to_torch(np.asarray(leaf), slot.path))
    return tensors


def slots(model: Model, shape: Shape, naming: Naming) -> list[Slot]:
    """Every array of the network, under the names of one naming."""
    found = []
    for path, size in variable_shapes(model, shape).items():
        _, *layers, leaf = path
        inside = leaf in LEAVES or leaf == "bias"
        layer = naming(".".join(layers if inside else (*layers, leaf)))
        key = f"{layer}.{LEAVES.get(leaf, leaf)}" if inside else layer
        found.append(Slot(path, size, key))
    return found


def _reads_a_map(path: tuple[str, ...], rank: int) -> bool:
    """A matrix over (H, W, C) has four axes too; by our convention its layer's name begins so."""
    return rank == 4 and path[-1] == "kernel" and path[-2].startswith("dense")


def _scales_maps(path: tuple[str, ...], rank: int) -> bool:
    """A vector of the network's own, in none of its layers, multiplies the channels of maps.

    PyTorch, whose channels come first, holds it as (C, 1, 1) (ConvNeXt's layer scale).
    """
    return rank == 1 and len(path) == 2


def _to_torch(value: np.ndarray, path: tuple[str, ...]) -> np.ndarray:
    if _scales_maps(path, value.ndim):
        return value.reshape(-1, 1, 1)
    if path[-1] != "kernel":
        return value
    if _reads_a_map(path, value.ndim):
        return value.transpose(3, 2, 0, 1).reshape(value.shape[-1], -1)
    return value.transpose(3, 2, 0, 1) if value.ndim == 4 else value.T


def _from_torch(value: np.ndarray, slot: Slot) -> np.ndarray:
    value = value.astype(np.float32)
    if slot.path[-1] != "kernel":
        return value.reshape(slot.shape)
    value = value.reshape(slot.torch_shape)
    if _reads_a_map(slot.path, len(slot.shape)):
        height, width, channels, out = slot.shape
        value = value.reshape(out, channels, height, width)
    value = value.transpose(2, 3, 1, 0) if len(slot.shape) == 4 else value.T
    return np.ascontiguousarray(value)


def _without_wrapping(tensors: Tensors) -> dict[str, np.ndarray]:
    """Strip prefixes that every name carries, and counters."""
    named = {k: v for k, v in tensors.items() if k.rsplit(".", 1)[-1] not in IGNORED}
    for prefix in PREFIXES * 2:  # wrappers come in twos, in any order
        if named and all(key.startswith(prefix) for key in named):
            named = {key.removeprefix(prefix): value for key, value in named.items()}
    return named


def _problems(wanted: list[Slot], tensors: Tensors) -> list[tuple[str, str, str]]:
    """What does not fit, the most telling first."""
    keys = {slot.key for slot in wanted}
    shapes, missing = [], []
    for slot in wanted:
        if slot.key not in tensors:
            missing.append(("missing", slot.key, _nearest(slot.key, set(tensors) - keys)))
            continue
        value, expected = tensors[slot.key], slot.torch_shape
        if _squeezed(value.shape) != _squeezed(expected):
            layer = ".".join(slot.path[1:-1])
            hint = f"{list(value.shape)}, but {layer} needs {list(expected)}"
            shapes.append(("shape", slot.key, hint))
        elif not np.isfinite(value).all():
            shapes.append(("not finite", slot.key, "NaN or infinity among its values"))
    absent = keys - set(tensors)
    unexpected = [("unexpected", key, _nearest(key, absent)) for key in tensors if key not in keys]
    return [*shapes, *missing, *unexpected]


def _squeezed(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(size for size in shape if size != 1)


def _nearest(key: str, among: set[str]) -> str:
    close = difflib.get_close_matches(key, among, n=1, cutoff=0.5)
    return f"nearest: {close[0]}" if close else ""


def _summary(model: Model, rows: list[tuple[str, str, str]]) -> str:
    counts = {kind: sum(row[0] == kind for row in rows) for kind, _, _ in rows}
    said = ", ".join(f"{count} {kind}" for kind, count in counts.items())
    kind, key, hint = rows[0]
    return f"the file does not fit {type(model).__name__}: {said}; first {kind}: {key} {hint}"
