"""A data set in one NumPy file: `train_images`, `train_labels` and so on, or Keras's `x_train`."""

import hashlib
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from kdjax.data.splits import Piece
from kdjax.data.stored import UNLABELLED, Pixels

KERAS = {"train": "train", "val": "validation", "test": "test"}
"""Splits as Keras's files call them in `x_…` and `y_…`."""


class NpzSet:
    """Arrays of images and labels, all in memory."""

    def __init__(self, name: str, directory: str | None) -> None:
        """`name` is `npz:FILE`, relative to the directory."""
        self.name = name
        self._path = Path(directory or "") / name.removeprefix("npz:")
        arrays = self._load()
        images = _split_arrays(arrays, "images", "x")
        labels = _split_arrays(arrays, "labels", "y")
        if not images:
            raise self._error("has no images; it shall hold train_images, train_labels and so on")
        self._images = {split: self._check_images(split, x) for split, x in images.items()}
        self.sizes = {split: len(x) for split, x in self._images.items()}
        self.unlabelled = frozenset(images) - frozenset(labels)
        self._labels = {split: self._check_labels(split, labels) for split in images}
        self.classes = self._classes(arrays)
        shapes = {x.shape[1:] for x in self._images.values()}
        if len({channels for _, _, channels in shapes}) > 1:
            raise self._error("has grey images in one split and coloured ones in another")
        self.size = next(iter(shapes))[:2] if len(shapes) == 1 else None
        self.channels = next(iter(shapes))[-1]
        self.fingerprint = self._fingerprint()

    def select(self, pieces: Sequence[Piece]) -> Pixels:
        """The examples of these pieces."""
        parts = [(self._images[p.split], self._labels[p.split], p) for p in pieces]
        images = [images[p.start : p.stop] for images, _, p in parts]
        labels = [labels[p.start : p.stop] for _, labels, p in parts]
        if len(parts) == 1:
            return Pixels(images[0], labels[0])
        return Pixels(np.concatenate(images), np.concatenate(labels))

    def _load(self) -> dict[str, np.ndarray]:
        if not self._path.is_file():
            raise self._error("does not exist")
        if not zipfile.is_zipfile(self._path):
            raise self._error("is damaged, or no npz file")
        try:
            with np.load(self._path, allow_pickle=False) as file:
                return dict(file)
        except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
            if "allow_pickle" in str(error):
                raise self._error("holds Python objects, which are never loaded") from error
            raise self._error("is damaged, or no npz file") from error

    def _check_images(self, split: str, images: np.ndarray) -> np.ndarray:
        if images.ndim == 3:
            images = images[..., None]
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[-1] not in (1, 3):
            raise self._error(
                f"has {split} images of type {images.dtype} and shape {images.shape}; they shall "
                "be uint8 [n, H, W], [n, H, W, 1] or [n, H, W, 3]"
            )
        if 0 in images.shape:
            raise self._error(f"has no {split} images: their shape is {images.shape}")
        return images

    def _check_labels(self, split: str, given: Mapping[str, np.ndarray]) -> np.ndarray:
        size = self.sizes[split]
        if split not in given:
            return np.full(size, UNLABELLED, np.int32)
        labels = given[split]
        whole = np.issubdtype(labels.dtype, np.integer)
        if not whole or labels.shape not in ((size,), (size, 1)):
            raise self._error(
                f"has {split} labels of type {labels.dtype} and shape {labels.shape}; they shall "
                f"be whole numbers [{size}], one an image"
            )
        return labels.reshape(size)

    def _classes(self, arrays: Mapping[str, np.ndarray]) -> tuple[str, ...]:
        known = [x for split, x in self._labels.items() if split not in self.unlabelled]
        if not known:
            raise self._error("has no labels at all; give them for validation and test at least")
        low, high = min(int(x.min()) for x in known), max(int(x.max()) for x in known)
        names = arrays.get("classes", np.arange(high + 1))
        if low < 0 or high >= len(names):
            raise self._error(
                f"has labels from {low} to {high}, but {len(names)} classes; labels are 0 to "
                f"{len(names) - 1}"
            )
        self._labels = {split: x.astype(np.int32) for split, x in self._labels.items()}
        return tuple(map(str, names))

    def _fingerprint(self) -> str:
        """Of the checksums that the file itself has of its arrays: nothing need be read."""
        with zipfile.ZipFile(self._path) as file:
            parts = sorted(f"{m.filename} {m.file_size} {m.CRC}" for m in file.infolist())
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()

    def _error(self, text: str) -> ValueError:
        return ValueError(f"data.name: {self._path} {text}.")


def _split_arrays(arrays: Mapping[str, np.ndarray], ours: str, keras: str) -> dict[str, np.ndarray]:
    """Arrays by split, under our names or under Keras's."""
    found = {
        key.removesuffix(f"_{ours}"): x for key, x in arrays.items() if key.endswith(f"_{ours}")
    }
    for theirs, split in KERAS.items():
        if f"{keras}_{theirs}" in arrays:
            found[split] = arrays[f"{keras}_{theirs}"]
    return found
