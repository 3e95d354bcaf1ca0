"""Kinds of channels, and which of a teacher's channels each of its student's is.

Must not know weights: how much a channel matters is told it.
"""

import functools
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from kdjax.students.channels import Axis, Path
from kdjax.students.labels import Labels


class Kinds(NamedTuple):
    """A network's channels, sorted into kinds: those that occur in the same places."""

    axes: Mapping[Axis, Labels]
    of: Mapping[int, int]
    """The kind of each label."""
    places: Sequence[frozenset[Axis]]
    """Of each kind: the axes its channels lie on, by the teacher's names."""
    members: Sequence[list[int]]
    """Of each kind: its labels, in rising order."""


def kinds(axes: Mapping[Axis, Labels]) -> Kinds:
    """Channels by the axes they lie on."""
    found: dict[int, set[Axis]] = defaultdict(set)
    for axis, labels in axes.items():
        for label in labels.tolist():
            found[label].add(axis)
    members: dict[frozenset[Axis], list[int]] = defaultdict(list)
    for label in sorted(found):
        members[frozenset(found[label])].append(label)
    of = {label: kind for kind, labels in enumerate(members.values()) for label in labels}
    return Kinds(axes, of, list(members), list(members.values()))


class Choice:
    """Which channel of the teacher each channel of the student is."""

    def __init__(self, old: Kinds, new: Kinds, scores: Mapping[Axis, np.ndarray | None]) -> None:
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
        candidates = sorted({self._old.of[label] for label in theirs})
        wanted = {self._new.of[label] for label in ours}
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
