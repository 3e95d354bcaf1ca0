"""A student's first weights, cut out of its trained teacher.

Runs in NumPy on the host. Must not know any one family: which channels belong together is read off
both networks' traces, and blocks are known by their names.
"""

from collections import Counter
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from kdjax.models import Model
from kdjax.models.summary import Shape
from kdjax.students.blocks import counterparts
from kdjax.students.channels import Axis, Path, channels, group_counts
from kdjax.students.derive import FRESH, Importance
from kdjax.students.kinds import Choice, Kinds, kinds
from kdjax.types import Variables


def inherit(
    teacher: Model,
    teacher_variables: Variables,
    student: Model,
    student_variables: Variables,
    shape: Shape,
    importance: Importance = "l1",
    gradients: Any = None,
) -> dict[str, Any]:
    """The student's variables for images of `shape`, with the teacher's values where it has them.

    - Channels: of those that occur in the same places, the student keeps the most important ones
      in their old order, so that nothing changes where nothing is removed; of each group of a group
      norm as many, since its statistics are those of the group. `l1`: the sum over the
      kernels `K_w` that write a channel of `||K_w[..., c]||_1 / mean_c' ||K_w[..., c']||_1` (Li et
      al., 2017, arXiv:1608.08710; the division lets every writer of a residual stream count
      alike). `bn_scale`: the same of the scales of batch norm (Liu et al., 2017, arXiv:1708.06519).
      `taylor`: the same of `|sum K_w[..., c] · g_w[..., c]|` over all arrays that write a channel,
      with the gradients `g` of the loss by the teacher's parameters: what the loss would change
      by without it, to first order (Molchanov et al., 2019, arXiv:1906.10771).
    - Blocks: block j of m is the teacher's block `floor(j n / m)` of n: the first, which changes
      the shape, and then evenly spaced ones.
    - What the teacher lacks (a shortcut that only the student needs) stays fresh.

    Cutting what a layer reads changes the scale of what it writes: `recalibrate` the result.
    ValueError where the student is of another family, wider, deeper or differently wired.
    """
    if type(teacher) is not type(student):
        raise ValueError(
            f"student: a {type(student).__name__} cannot be cut out of a {type(teacher).__name__}; "
            f"choose the same family, {FRESH}"
        )
    theirs, ours = _flat(teacher_variables), _flat(student_variables)
    sources = counterparts(theirs, ours)
    old, new = _kinds(teacher, student, shape, sources)
    _check_widths(old, new)
    moves = {("params", *path): x for path, x in _flat(gradients or {}).items()}
    choice = Choice(old, new, _scores(old, theirs, importance, moves))
    cut = {
        path: _cut(path, sources[path], theirs[sources[path]], fresh, choice)
        if path in sources
        else fresh
        for path, fresh in ours.items()
    }
    return nested(cut)


def _kinds(
    teacher: Model, student: Model, shape: Shape, sources: Mapping[Path, Path]
) -> tuple[Kinds, Kinds]:
    """Both networks' channels, the student's by its teacher's names."""
    theirs, ours = group_counts(teacher, shape), group_counts(student, shape)
    # Groups of a fixed width come and go with the width of the network: they are cut whole.
    whole = frozenset(p for p, source in sources.items() if ours.get(p) != theirs.get(source))
    old = channels(teacher, shape, frozenset(sources[path] for path in whole))
    new = channels(student, shape, whole)
    named = {a._replace(path=sources[a.path]): x for a, x in new.items() if a.path in sources}
    return kinds({a: x for a, x in old.items() if a in named}), kinds(named)


def _check_widths(old: Kinds, new: Kinds) -> None:
    for axis, labels in new.axes.items():
        have = len(old.axes.get(axis, labels))
        if axis.path[-1] == "kernel" and not axis.reads and len(labels) > have:
            raise ValueError(
                f"student: {len(labels)} channels in {_layer(axis.path)}, but its teacher has "
                f"{have}; give it at most as many, {FRESH}"
            )


def _scores(
    old: Kinds,
    variables: Mapping[Path, np.ndarray],
    importance: Importance,
    gradients: Mapping[Path, np.ndarray],
) -> dict[Axis, np.ndarray | None]:
    """How much each channel of an axis matters to the array that writes it; None: no say."""
    groups = Counter(axis.path for axis in old.axes if not axis.reads and not axis.part)
    leaf = {"l1": "kernel", "bn_scale": "scale"}.get(importance)

    def score(axis: Axis) -> np.ndarray | None:
        if (
            axis.part
            or axis.reads
            or (axis.path not in gradients if leaf is None else axis.path[-1] != leaf)
        ):
            return None
        value = np.abs(variables[axis.path])
        if leaf is None:
            value = variables[axis.path] * gradients[axis.path]
        part = _part(value, axis.group, groups[axis.path])
        norms = np.abs(part.sum(axis=tuple(range(part.ndim - 1)), dtype=np.float64))
        return norms / max(norms.mean(), np.finfo(np.float64).tiny)  # all zeros: no favourites

    return {axis: score(axis) for axis in old.axes}


def _layer(path: Path) -> str:
    return ".".join(path[1:-1] or path[1:])


def _cut(
    path: Path, source: Path, value: np.ndarray, fresh: np.ndarray, choice: Choice
) -> np.ndarray:
    """One array of the student: the teacher's where it has it, `fresh` elsewhere."""
    rows = choice.groups(source, reads=True)
    columns = choice.groups(source, reads=False)
    _check_shapes(path, value, fresh, read=bool(rows), written=bool(columns))
    result = np.array(fresh)
    for group in range(max(len(rows), len(columns), 1)):
        old, new = (_part(array, group, len(columns)) for array in (value, result))
        keep = [np.arange(size) for size in old.shape]
        put = [np.arange(size) for size in new.shape]
        for axis, chosen in ((-1, columns), (-2, rows)):
            if chosen:
                put[axis] = np.flatnonzero(chosen[group] >= 0)
                keep[axis] = chosen[group][put[axis]]
        new[np.ix_(*put)] = old[np.ix_(*keep)]
    return result


def _part(array: np.ndarray, group: int, groups: int) -> np.ndarray:
    """What one group of a convolution writes: a view."""
    size = array.shape[-1] // max(groups, 1)
    return array[..., group * size : (group + 1) * size]


def _check_shapes(
    path: Path, value: np.ndarray, fresh: np.ndarray, *, read: bool, written: bool
) -> None:
    cut = {-1} if written else set()
    cut |= {-2} if read else set()
    ranks = range(-max(value.ndim, fresh.ndim), 0)
    if value.ndim != fresh.ndim or any(
        value.shape[axis] != fresh.shape[axis] for axis in ranks if axis not in cut
    ):
        raise ValueError(
            f"student: {_layer(path)} needs a {path[-1]} of shape {fresh.shape}, its teacher gives "
            f"{value.shape}; let the two differ in channels and blocks only, {FRESH}"
        )


def _flat(variables: Variables) -> dict[Path, np.ndarray]:
    leaves = jax.tree_util.tree_leaves_with_path(dict(variables))
    return {tuple(part.key for part in path): np.asarray(leaf) for path, leaf in leaves}


def nested(arrays: Mapping[Path, np.ndarray]) -> dict[str, Any]:
    """A variable collection from its arrays by path."""
    tree: dict[str, Any] = {}
    for path, array in arrays.items():
        node = tree
        for name in path[:-1]:
            node = node.setdefault(name, {})
        node[path[-1]] = array
    return tree
