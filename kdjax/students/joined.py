"""Which labels stand for one channel: those that were joined. Must not know JAX or networks."""

from collections.abc import Sequence

import numpy as np

from kdjax.students.labels import Labels, Layer, Value


class Joined:
    """Labels, in sets that grow together."""

    def __init__(self) -> None:
        self._parent = np.zeros(1, np.int64)

    def fresh(self, size: int) -> Labels:
        """Labels that were never given out, each a channel of its own."""
        start = len(self._parent)
        labels = np.arange(start, start + size)
        self._parent = np.concatenate([self._parent, labels])
        return labels

    def roots(self, labels: Labels) -> Labels:
        """The label that stands for each, after all that was joined so far."""
        while not np.array_equal(parents := self._parent[labels], labels):
            labels = parents
        return labels

    def join(self, a: Labels, b: Labels) -> None:
        """Make these channels the same, pair by pair; nothing is the same as no channel."""
        a, b = np.broadcast_arrays(self.roots(a), self.roots(b))
        differ = (a != b) & (a != 0) & (b != 0)
        for pair in np.unique(np.stack([a[differ], b[differ]], axis=-1), axis=0):
            now = self.roots(pair)  # earlier pairs may have joined them
            self._parent[now.max()] = now.min()

    def together(self, inputs: Sequence[Value]) -> Value:
        """Element by element: channels along the same axes are the same channels."""
        result: Value = []
        for layer in [layer for value in inputs for layer in value]:
            for i, other in enumerate(result):
                if layer.axes & other.axes:
                    self.join(layer.labels, other.labels)
                    a, b = np.broadcast_arrays(other.labels, layer.labels)
                    result[i] = Layer(layer.axes | other.axes, np.where(a == 0, b, a))
                    break
            else:
                result.append(layer)
        return result
