"""A split in memory whose images are decoded when they are first read: training begins soon.

Knows nothing of files: what reads them is handed in.
"""

from collections.abc import Callable

import numpy as np

from kdjax.data import decoded

CHUNK = 512
"""Images that are decoded together."""

Read = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]
"""From indices to images uint8 `[n, H, W, C]` and labels int32 `[n]`."""


class Decoding:
    """Each image is decoded once; when all are, they are written down for the next job."""

    def __init__(self, read: Read, count: int, shape: tuple[int, int, int], name: str) -> None:
        """`count` images of this `shape`, which `decoded` keeps under `name`."""
        self._read, self._name = read, name
        self._images = np.empty((count, *shape), np.uint8)
        self._labels = np.empty(count, np.int32)
        self._known = np.zeros(count, bool)

    def __len__(self) -> int:
        return len(self._known)

    @property
    def shape(self) -> tuple[int, ...]:
        """Of `images`."""
        return self._images.shape

    @property
    def images(self) -> np.ndarray:
        """All of them."""
        self._decode(np.arange(len(self)))
        return self._images

    @property
    def labels(self) -> np.ndarray:
        """Of all images."""
        self._decode(np.arange(len(self)))
        return self._labels

    def read(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Images uint8 `[n, H, W, C]` and labels int32 `[n]`."""
        self._decode(indices)
        return self._images[indices], self._labels[indices]

    def _decode(self, indices: np.ndarray) -> None:
        missing = np.unique(indices[~self._known[indices]])
        for start in range(0, len(missing), CHUNK):
            part = missing[start : start + CHUNK]
            self._images[part], self._labels[part] = self._read(part)
            self._known[part] = True
        if len(missing) and self._known.all():
            decoded.save(self._name, self._images, self._labels)
