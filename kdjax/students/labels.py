"""Labels of channels along the axes of an array, and how they move when arrays are rearranged.

Pure functions on NumPy arrays; must not know JAX, networks, or what a label stands for.
"""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

Labels = np.ndarray
"""A label for each position; 0 where no channel of the network lies."""


class Layer(NamedTuple):
    """Labels of a value along some of its axes: as long as it there, and 1 elsewhere."""

    axes: frozenset[int]
    labels: Labels


Value = list[Layer]
"""What is known of an array in the trace; empty where it carries no channels."""


def along(labels: Labels, rank: int, axis: int) -> Labels:
    """Labels of one axis as those of a value of this rank."""
    return labels.reshape([-1 if a == axis else 1 for a in range(rank)])


def vector(value: Value, axis: int, size: int) -> Labels:
    """The labels along one axis; no channels where they do not vary along it alone."""
    alone = [layer for layer in value if layer.axes == {axis}]
    return alone[0].labels.reshape(-1) if alone else np.zeros(size, np.int64)


def rows(value: Value, axis: int, size: int) -> list[Labels]:
    """The labels at each place of an axis, a row a place, where they vary along it.

    A single place, `[1, n]`, is the only head of attention: there all do.
    """
    return [
        np.moveaxis(layer.labels, axis, 0).reshape(layer.labels.shape[axis], -1)
        for layer in value
        if axis in layer.axes or layer.labels.shape[axis] == size == 1
    ]


def moved(layer: Layer, places: Mapping[int, int], rank: int) -> Layer:
    """The layer with its axes at other places of a result."""
    order = sorted(layer.axes, key=lambda axis: places[axis])
    others = [axis for axis in range(layer.labels.ndim) if axis not in layer.axes]
    shape = [1] * rank
    for axis in order:
        shape[places[axis]] = layer.labels.shape[axis]
    labels = layer.labels.transpose([*others, *order]).reshape(shape)
    return Layer(frozenset(places[axis] for axis in layer.axes), labels)


def grouped(value: Value, gone: Sequence[int]) -> list[Labels]:
    """Labels of which some are summed together and apart from others, a row a sum."""
    found = []
    for layer in value:
        together = layer.axes.intersection(gone)
        apart = layer.axes - together
        if together and apart:
            order = [*sorted(apart), *sorted(together)]
            sums = math.prod(layer.labels.shape[axis] for axis in apart)
            others = [axis for axis in range(layer.labels.ndim) if axis not in layer.axes]
            found.append(layer.labels.transpose(*order, *others).reshape(sums, -1))
    return found


def without(value: Value, gone: Sequence[int]) -> Value:
    """What is left when some axes are summed away."""
    rank = value[0].labels.ndim if value else 0
    left = [axis for axis in range(rank) if axis not in gone]
    places = {axis: i for i, axis in enumerate(left)}
    return [moved(layer, places, len(left)) for layer in value if layer.axes <= places.keys()]


def stacked(value: Value) -> Value:
    """With a new first axis, along which nothing varies."""
    return [Layer(frozenset(a + 1 for a in x.axes), x.labels[np.newaxis]) for x in value]


def stretched(value: Value, out: Sequence[int]) -> Value:
    """One channel spread over many is a gate of all of them, and none of them."""
    return [layer for layer in value if all(layer.labels.shape[a] == out[a] for a in layer.axes)]


def reshaped(layer: Layer, old: Sequence[int], new: Sequence[int]) -> Value:
    """The layer after a reshape; nothing where its axes were merged away."""
    axes: set[int] = set()
    for before, after in matching(old, new):
        if layer.axes & set(before):
            long = [axis for axis in after if new[axis] > 1]
            axes |= set(long or after[:1])
    if not axes:
        return []
    full = np.broadcast_to(layer.labels, old).reshape(new)
    first = tuple(slice(None) if axis in axes else slice(0, 1) for axis in range(len(new)))
    return [Layer(frozenset(axes), full[first])]


def matching(old: Sequence[int], new: Sequence[int]) -> list[tuple[list[int], list[int]]]:
    """Runs of axes that a reshape turns into each other: those of equal products.

    From the last axis on, where channels are, since axes of size 1 fit anywhere.
    """
    runs: list[tuple[list[int], list[int]]] = []
    i, j = len(old) - 1, len(new) - 1
    while i >= 0 or j >= 0:
        if runs and i >= 0 and old[i] == 1 and (j < 0 or new[j] > 1):
            runs.append(([i], []))
            i -= 1
            continue
        before, after = [i] if i >= 0 else [], [j] if j >= 0 else []
        while (a := math.prod(old[x] for x in before)) != (b := math.prod(new[x] for x in after)):
            grown = before if a < b else after
            grown.append(grown[-1] - 1)
        i, j = i - len(before), j - len(after)
        runs.append((before, after))
    return runs


def cut(layer: Layer, parts: Sequence[slice]) -> Layer:
    """The part of a layer that a slice of its value leaves."""
    inside = [part if a in layer.axes else slice(None) for a, part in enumerate(parts)]
    return Layer(layer.axes, layer.labels[tuple(inside)])


def padded(value: Value, config: Sequence[tuple[int, int, int]]) -> Value:
    """With no channels where the value is padded; nothing where it is cut or stretched instead."""
    result = []
    for layer in value:
        labels = layer.labels
        if all(
            inner == 0 <= min(low, high) for low, high, inner in (config[a] for a in layer.axes)
        ):
            width = [config[a][:2] if a in layer.axes else (0, 0) for a in range(labels.ndim)]
            result.append(Layer(layer.axes, np.pad(labels, width)))
    return result
