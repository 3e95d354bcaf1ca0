"""A student's first weights, cut out of its trained teacher.

Runs in NumPy on the host. Must not know any one family: a network declares which groups of
channels its layers read and write, and which blocks make up its stages.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from kdjax.models import Model
from kdjax.types import Variables

Pair = tuple[str | None, str | None]
"""A group of the teacher and the group of the student that is cut out of it."""
Links = Mapping[str, tuple[str, Pair, Pair]]
"""Each layer of the student: the teacher's layer it comes from, what it reads, what it writes."""
Kept = Mapping[Pair, np.ndarray]
"""The teacher's channels that remain, in rising order."""

FRESH = "or start from fresh weights (inherit=False)."


def inherit(
    teacher: Model, teacher_variables: Variables, student: Model, student_variables: Variables
) -> dict[str, Any]:
    """The student's variables, with the teacher's values wherever the teacher has them.

    - Channels: a group keeps the channels with the largest `sum_w ||K_w[..., c]||_1 / mean_c'
      ||K_w[..., c']||_1` over the kernels `K_w` that write it (Li et al., 2017, arXiv:1608.08710;
      the division lets every writer of a residual stream count alike), in their old order. So
      nothing changes where nothing is removed.
    - Blocks: block j of m is the teacher's block `floor(j n / m)` of n: the first, which changes
      the shape, and then evenly spaced ones.
    - A layer that the teacher lacks (a shortcut that only the student needs) stays fresh.

    Cutting what a layer reads changes the scale of what it writes: `recalibrate` the result.
    ValueError where the student is of another family, wider, deeper or differently wired.
    """
    links = _links(teacher, student)
    kept = _important_channels(links, teacher_variables["params"], student_variables["params"])
    inherited: dict[str, Any] = {}
    for collection, layers in student_variables.items():
        inherited[collection] = dict(layers)
        for layer, (source, read, written) in links.items():
            if layer in layers:
                inherited[collection][layer] = _cut(
                    layer,
                    teacher_variables[collection][source],
                    _channels(layer, kept, read),
                    _channels(layer, kept, written),
                    layers[layer],
                )
    return inherited


def _links(teacher: Model, student: Model) -> Links:
    if type(teacher) is not type(student):
        raise ValueError(
            f"student: a {type(student).__name__} cannot be cut out of a {type(teacher).__name__}; "
            f"choose the same family, {FRESH}"
        )
    theirs, ours = teacher.channels(), student.channels()
    blocks = _blocks(teacher.stages(), student.stages())
    links = {}
    for layer, (reads, writes) in ours.items():
        block = next((b for b in blocks if layer.startswith(f"{b}_")), None)
        source = layer if block is None else blocks[block] + layer.removeprefix(block)
        if source in theirs:
            links[layer] = (source, (theirs[source][0], reads), (theirs[source][1], writes))
    return links


def _blocks(
    theirs: tuple[tuple[str, ...], ...], ours: tuple[tuple[str, ...], ...]
) -> dict[str, str]:
    """The block of the teacher that each block of the student comes from."""
    if len(ours) != len(theirs):
        raise ValueError(
            f"student: {len(ours)} stages, but its teacher has {len(theirs)}; give it as many, "
            f"{FRESH}"
        )
    chosen = {}
    for i, (old, new) in enumerate(zip(theirs, ours, strict=True), start=1):
        if len(new) > len(old):
            raise ValueError(
                f"student: {len(new)} blocks in stage {i}, but its teacher has {len(old)}; "
                f"give it at most as many, {FRESH}"
            )
        chosen.update({block: old[j * len(old) // len(new)] for j, block in enumerate(new)})
    return chosen


def _important_channels(links: Links, theirs: Variables, ours: Variables) -> Kept:
    importance: dict[Pair, np.ndarray] = {}
    sizes: dict[Pair, int] = {}
    for layer, (source, _, written) in links.items():
        if None not in written and "kernel" in theirs[source]:
            kernel = np.abs(theirs[source]["kernel"])
            norms = kernel.sum(axis=tuple(range(kernel.ndim - 1)), dtype=np.float64)
            # A writer that is all zeros has no favourites.
            relative = norms / max(norms.mean(), np.finfo(np.float64).tiny)
            importance[written] = importance.get(written, np.zeros(())) + relative
            sizes[written] = ours[layer]["kernel"].shape[-1]
    return {pair: _largest(pair, importance[pair], sizes[pair]) for pair in importance}


def _largest(pair: Pair, importance: np.ndarray, size: int) -> np.ndarray:
    if size > len(importance):
        raise ValueError(
            f"student: {size} channels in {pair[1]}, but its teacher has {len(importance)}; "
            f"give it at most as many, {FRESH}"
        )
    return np.sort(np.argsort(-importance, kind="stable")[:size])


def _channels(layer: str, kept: Kept, pair: Pair) -> np.ndarray | None:
    """What remains of one axis; None: everything."""
    if None in pair:
        return None
    if pair not in kept:
        raise ValueError(
            f"student: {layer} uses {pair[1]} where its teacher uses {pair[0]}; "
            f"give both the same stages, {FRESH}"
        )
    return kept[pair]


def _cut(
    layer: str,
    values: Mapping[str, Any],
    read: np.ndarray | None,
    written: np.ndarray | None,
    like: Mapping[str, Any],
) -> dict[str, np.ndarray]:
    """A kernel ends in (channels read, channels written); anything else in the channels written."""
    cut = {}
    for name, value in values.items():
        leaf = np.array(value)
        if written is not None:
            leaf = leaf[..., written]
        if read is not None and leaf.ndim > 1:
            leaf = leaf[..., read, :]
        if leaf.shape != like[name].shape:
            raise ValueError(
                f"student: {layer} needs a {name} of shape {like[name].shape}, its teacher gives "
                f"{leaf.shape}; let the two differ in channels and blocks only, {FRESH}"
            )
        cut[name] = leaf
    return cut
