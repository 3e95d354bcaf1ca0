"""A student's first weights, cut out of its trained teacher.

Runs in NumPy on the host. Must not know any one family: which channels belong together is read off
both networks' traces, and blocks are known by their names, `stage1_block0_…`.
"""

import functools
import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from kdjax.models import Model
from kdjax.models.base import evenly_spaced
from kdjax.models.summary import Shape
from kdjax.students.channels import Axis, Path, channels, group_counts
from kdjax.students.derive import Importance
from kdjax.students.labels import Labels
from kdjax.types import Variables

FRESH = "or start from fresh weights (inherit=False)."


class Trace(NamedTuple):
    """A network's channels, sorted into kinds: those that occur in the same places."""

    axes: Mapping[Axis, Labels]
    kinds: Mapping[int, int]
    """Of each label."""
    places: Sequence[frozenset[Axis]]
    """Of each kind: the axes its channels lie on, by the teacher's names."""
    members: Sequence[list[int]]
    """Of each kind: its labels, in rising order."""


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
      in their old order, so that nothing changes where nothing is removed. `l1`: the sum over the
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
    sources = _sources(theirs, ours)
    old, new = _traces(teacher, student, shape, sources)
    _check_widths(old, new)
    moves = {("params", *path): x for path, x in _flat(gradients or {}).items()}
    choice = _Choice(old, new, _scores(old, theirs, importance, moves))
    cut = {
        path: _cut(path, sources[path], theirs[sources[path]], fresh, choice)
        if path in sources
        else fresh
        for path, fresh in ours.items()
    }
    return nested(cut)


def _traces(
    teacher: Model, student: Model, shape: Shape, sources: Mapping[Path, Path]
) -> tuple[Trace, Trace]:
    """Both networks' channels, the student's by its teacher's names."""
    theirs, ours = group_counts(teacher, shape), group_counts(student, shape)
    # Groups of a fixed width come and go with the width of the network: they are cut whole.
    whole = frozenset(p for p, source in sources.items() if ours.get(p) != theirs.get(source))
    old = channels(teacher, shape, frozenset(sources[path] for path in whole))
    new = channels(student, shape, whole)
    named = {a._replace(path=sources[a.path]): x for a, x in new.items() if a.path in sources}
    return _trace({a: x for a, x in old.items() if a in named}), _trace(named)


def _trace(axes: Mapping[Axis, Labels]) -> Trace:
    found: dict[int, set[Axis]] = defaultdict(set)
    for axis, labels in axes.items():
        for label in labels.tolist():
            found[label].add(axis)
    members: dict[frozenset[Axis], list[int]] = defaultdict(list)
    for label in sorted(found):
        members[frozenset(found[label])].append(label)
    kinds = {label: kind for kind, labels in enumerate(members.values()) for label in labels}
    return Trace(axes, kinds, list(members), list(members.values()))


def _check_widths(old: Trace, new: Trace) -> None:
    for axis, labels in new.axes.items():
        have = len(old.axes[axis])
        if axis.path[-1] == "kernel" and not axis.reads and len(labels) > have:
            raise ValueError(
                f"student: {len(labels)} channels in {_layer(axis.path)}, but its teacher has "
                f"{have}; give it at most as many, {FRESH}"
            )


class _Choice:
    """Which channel of the teacher each channel of the student is."""

    def __init__(self, old: Trace, new: Trace, scores: Mapping[Axis, np.ndarray | None]) -> None:
        self._old, self._new, self._scores = old, new, scores
        self._pair = functools.cache(self._make_pair)

    def groups(self, path: Path, *, reads: bool) -> list[np.ndarray]:
        """For each position of the student along an axis of an array, the teacher's position.

        -1 where it has none. One result for each group of a convolution; empty where the axis is
        never cut.
        """
        found: list[np.ndarray] = []
        while (axis := Axis(path, reads, len(found))) in self._old.axes:
            found.append(self._at(axis))
        return found

    def _at(self, axis: Axis) -> np.ndarray:
        ours, theirs = self._new.axes[axis].tolist(), self._old.axes[axis].tolist()
        candidates = sorted({self._old.kinds[label] for label in theirs})
        wanted = {self._new.kinds[label] for label in ours}
        sources: dict[int, int] = {}
        for kind in wanted:
            sources |= self._pair(self._most_alike(kind, candidates), kind)
        # A channel of a flattened map lies at many positions: the n-th is the n-th.
        places = {pair: position for position, pair in enumerate(_numbered(theirs))}
        return np.array([places.get((sources.get(x, 0), n), -1) for x, n in _numbered(ours)])

    def _most_alike(self, kind: int, candidates: list[int]) -> int:
        """The teacher's kind that shares most places with one of the student."""
        if len(candidates) == 1:
            return candidates[0]
        ours = self._new.places[kind]
        return max(candidates, key=lambda k: _overlap(self._old.places[k], ours))

    def _make_pair(self, old: int, new: int) -> dict[int, int]:
        """The student's channels of one kind, from the teacher's most important ones of another."""
        theirs, ours = self._old.members[old], self._new.members[new]
        weight = dict.fromkeys(theirs, 0.0)
        for axis in self._old.places[old] & self._new.places[new]:
            scores = self._scores[axis]
            if scores is not None:
                for label, score in zip(self._old.axes[axis].tolist(), scores, strict=True):
                    if label in weight:
                        weight[label] += score
        best = sorted(theirs, key=lambda label: -weight[label])[: len(ours)]
        return dict(zip(ours, sorted(best), strict=False))


def _overlap(a: frozenset[Axis], b: frozenset[Axis]) -> float:
    return len(a & b) / len(a | b)


def _numbered(labels: list[int]) -> list[tuple[int, int]]:
    """Each label with how often it has occurred before."""
    seen: dict[int, int] = defaultdict(int)
    pairs = []
    for label in labels:
        pairs.append((label, seen[label]))
        seen[label] += 1
    return pairs


def _scores(
    trace: Trace,
    variables: Mapping[Path, np.ndarray],
    importance: Importance,
    gradients: Mapping[Path, np.ndarray],
) -> dict[Axis, np.ndarray | None]:
    """How much each channel of an axis matters to the array that writes it; None: no say."""
    groups = Counter(axis.path for axis in trace.axes if not axis.reads)
    leaf = {"l1": "kernel", "bn_scale": "scale"}.get(importance)

    def score(axis: Axis) -> np.ndarray | None:
        if axis.reads or (axis.path not in gradients if leaf is None else axis.path[-1] != leaf):
            return None
        value = np.abs(variables[axis.path])
        if leaf is None:
            value = variables[axis.path] * gradients[axis.path]
        part = _part(value, axis.group, groups[axis.path])
        norms = np.abs(part.sum(axis=tuple(range(part.ndim - 1)), dtype=np.float64))
        return norms / max(norms.mean(), np.finfo(np.float64).tiny)  # all zeros: no favourites

    return {axis: score(axis) for axis in trace.axes}


def _layer(path: Path) -> str:
    return ".".join(path[1:-1] or path[1:])


def _cut(
    path: Path, source: Path, value: np.ndarray, fresh: np.ndarray, choice: "_Choice"
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


BLOCK = re.compile(r"((?:(?:member\d+|network)/)*stage\d+)_block(\d+)(?=[_/]|$)")
"""The stage and the number of a block, at the top of a network or of one within another."""


def _sources(theirs: Mapping[Path, Any], ours: Mapping[Path, Any]) -> dict[Path, Path]:
    """The teacher's array that each array of the student comes from, where it has one."""
    blocks = _block_names(_stages(theirs), _stages(ours))
    sources = {}
    for path in ours:
        collection, layer = path[0], "/".join(path[1:])
        found = BLOCK.match(layer)
        if found:
            layer = blocks[found[0]] + layer[found.end() :]
        if (source := (collection, *layer.split("/"))) in theirs:
            sources[path] = source
    return sources


def _stages(paths: Mapping[Path, Any]) -> dict[str, int]:
    """Blocks of each stage."""
    counts: dict[str, int] = {}
    for _, *layers in paths:
        if found := BLOCK.match("/".join(layers)):
            counts[found[1]] = max(counts.get(found[1], 0), int(found[2]) + 1)
    return counts


def _block_names(theirs: Mapping[str, int], ours: Mapping[str, int]) -> dict[str, str]:
    """The block of the teacher that each block of the student comes from."""
    if len(ours) != len(theirs):
        raise ValueError(
            f"student: {len(ours)} stages, but its teacher has {len(theirs)}; give it as many, "
            f"{FRESH}"
        )
    chosen = {}
    for stage, new in ours.items():
        old = theirs[stage]
        if new > old:
            raise ValueError(
                f"student: {new} blocks in {stage}, but its teacher has {old}; give it at most as "
                f"many, {FRESH}"
            )
        for j, source in enumerate(evenly_spaced(old, new)):
            chosen[f"{stage}_block{j}"] = f"{stage}_block{source}"
    return chosen


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
