"""Where examples come from: random access to the decoded images of one split.

Knows of data sets what all kinds of them have in common; nothing of batches, epochs or devices.
"""

import json
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from kdjax.data import decoded
from kdjax.data.decoding import Decoding, Read
from kdjax.data.folder_set import FolderSet
from kdjax.data.images import BrokenImage, Decoder, Size, image_size
from kdjax.data.npz_set import NpzSet
from kdjax.data.reading import Encoded, all_images, broken_images, digest, mapper
from kdjax.data.splits import pieces
from kdjax.data.stored import Pixels
from kdjax.data.tfds_set import TfdsRecords, TfdsSet

IN_MEMORY_BYTES = 4 * 1024**3
"""A split that decodes to less than this is decoded once and kept."""

Stored = TfdsSet | FolderSet | NpzSet
"""A data set of any kind: `name`, `channels` and `size` of its images (None: it does not say),
`classes`, `sizes` of its splits and which are `unlabelled`; a `fingerprint` that changes with its
content, but not with its place; and `select`, the examples of pieces of it, one after the other."""
Broken = Literal["fail", "skip"]
"""What an image that cannot be read does: end the job, or stay out of it."""


@dataclass(frozen=True)
class DataInfo:
    """What a model must know of a data set."""

    name: str
    shape: tuple[int, int, int]
    """Height, width, channels of every image."""
    classes: tuple[str, ...]
    """Class names in label order."""
    sizes: dict[str, int] = field(hash=False)
    """Examples in the train, validation and test split."""
    fingerprint: str
    """Of the content, wherever it lies; empty where no data is known."""
    labelled: bool = True
    """Whether the training images have labels; -1 stands for one that is missing."""


class Arrays:
    """A split in memory."""

    def __init__(self, images: np.ndarray, labels: np.ndarray) -> None:
        self.images, self.labels = images, labels.astype(np.int32)

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def shape(self) -> tuple[int, ...]:
        """Of `images`."""
        return self.images.shape

    def read(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Images uint8 `[n, H, W, C]` and labels int32 `[n]`, by one vectorised gather."""
        return self.images[indices], self.labels[indices]


class Records:
    """A split on disk, decoded when it is read."""

    def __init__(
        self, encoded: Encoded, decode: Decoder, shape: tuple[int, int, int], kept: np.ndarray
    ) -> None:
        """`kept` are the examples of `encoded` that are read, in order."""
        self._encoded, self._decode, self._shape, self._kept = encoded, decode, shape, kept
        self._pool = ThreadPoolExecutor(thread_name_prefix="decode")

    def __len__(self) -> int:
        return len(self._kept)

    @property
    def labels(self) -> np.ndarray:
        """Of all images, int32 `[n]`; of a set of TFDS every record is read."""
        return self._encoded.labels[self._kept]

    def read(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """As `Arrays.read`; decoded in threads, since Pillow lets go of the interpreter lock."""
        stored = self._kept[indices].tolist()
        encoded, labels = self._encoded.fetch(stored)
        names = map(self._encoded.name, stored)
        images = np.empty((len(encoded), *self._shape), np.uint8)
        many = mapper(self._pool, encoded)
        for i, image in enumerate(many(self._decode, encoded, names)):
            images[i] = checked(image, self._shape, self._encoded.name(stored[i]))
        return images, labels


InMemory = Arrays | Decoding
"""A split that is held in memory: `images` and their `shape`."""
Source = InMemory | Records
"""Random access to one split: `len(source)`, `source.read(indices)` for images and labels, and
all `labels`, for which a set of TFDS is read to its end once."""


def open_stored(name: str, directory: str | None) -> Stored:
    """The data set that `data.name` means."""
    match name.partition(":")[0]:
        case "folder":
            return FolderSet(name, directory)
        case "npz":
            return NpzSet(name, directory)
        case _:
            return TfdsSet(name, directory)


class DataSet:
    """A data set: its description, and its splits on demand."""

    def __init__(
        self,
        name: str,
        directory: str | None,
        splits: dict[str, str],
        *,
        image_size: Size | None = None,
        grey: bool = False,
        broken: Broken = "fail",
    ) -> None:
        """`splits` maps train, validation and test to split expressions of TFDS."""
        self._stored, self._broken = open_stored(name, directory), broken
        stored = self._stored
        self._pieces = {
            key: pieces(expression, stored.sizes, f"data.{key}", stored.name)
            for key, expression in splits.items()
        }
        self._decode = Decoder(1 if grey else stored.channels, image_size)
        self._left_out: dict[str, tuple[int, ...]] = {}
        self._opened: dict[str, Source] = {}
        self.shape = (*(image_size or stored.size or self._first_size()), self._decode.channels)
        unlabelled = {
            key
            for key, parts in self._pieces.items()
            if {p.split for p in parts} & stored.unlabelled
        }
        if unlabelled - {"train"}:
            key = min(unlabelled - {"train"})
            raise ValueError(
                f"data.{key}: the images of {splits[key]!r} have no labels; only the training "
                "images can do without."
            )
        self.info = DataInfo(
            name=name,
            shape=self.shape,
            classes=stored.classes,
            sizes={key: self._size(key) for key in splits},
            fingerprint=self._fingerprint(),
            labelled=not unlabelled,
        )

    def open(self, split: str) -> Source:
        """The examples of `train`, `validation` or `test`; decoded once, if they are few."""
        if split not in self._opened:
            self._opened[split] = self._open(split)
        return self._opened[split]

    def _open(self, split: str) -> Source:
        stored = self._stored.select(self._pieces[split])
        if isinstance(stored, Pixels):
            return self._of_pixels(split, stored)
        if len(stored) * int(np.prod(self.shape)) > IN_MEMORY_BYTES:
            kept = np.arange(len(stored))
            if self._broken == "skip":
                kept = self._without(split, stored, broken_images(stored, self._decode))
            return Records(stored, self._decode, self.shape, kept)
        return self._in_memory(split, stored)

    def _of_pixels(self, split: str, pixels: Pixels) -> Arrays:
        images = self._decode.of_array(pixels.images)
        checked(images[0], self.shape, f"the {split} images")
        return Arrays(images, pixels.labels)

    def _in_memory(self, split: str, stored: Encoded) -> Arrays | Decoding:
        name = digest(stored.stamp, repr(self._decode))
        known = decoded.load(name, len(stored), self.shape)
        if known:
            return Arrays(*known)
        if isinstance(stored, TfdsRecords) and self._broken == "fail":
            # Whoever prepared the set looked at every image; folders are looked at here.
            return Decoding(self._reading(stored), len(stored), self.shape, name)
        return self._decode_all(split, stored, name)

    def _reading(self, stored: Encoded) -> Read:
        records = Records(stored, self._decode, self.shape, np.arange(len(stored)))

        def read(indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            try:
                return records.read(indices)
            except BrokenImage as error:
                self._refuse(error)
                raise

        return read

    def _decode_all(self, split: str, stored: Encoded, name: str) -> Arrays:
        images = np.empty((len(stored), *self.shape), np.uint8)
        labels = np.empty(len(stored), np.int32)
        broken = {}
        for i, (image, label) in enumerate(all_images(stored, self._decode, f"data: {split}")):
            labels[i] = label
            if isinstance(image, BrokenImage):
                self._refuse(image)
                broken[i] = str(image)
            else:
                images[i] = checked(image, self.shape, stored.name(i))
        if not broken:
            decoded.save(name, images, labels)
            return Arrays(images, labels)
        kept = self._without(split, stored, list(broken))
        return Arrays(images[kept], labels[kept])

    def _refuse(self, error: BrokenImage) -> None:
        if self._broken == "fail":
            raise ValueError(f"{error} Mend it, or set data.broken to skip.") from error

    def _without(self, split: str, stored: Encoded, broken: Sequence[int]) -> np.ndarray:
        """The examples that remain; those left out are named on stderr and in the fingerprint."""
        self._left_out[split] = tuple(broken)
        if not broken:
            return np.arange(len(stored))
        if len(broken) == len(stored):
            raise ValueError(f"data.{split}: no image can be read, {stored.name(0)} to begin with.")
        names = ", ".join(map(stored.name, broken[:3])) + (", …" if len(broken) > 3 else "")
        text = f"{len(broken):,} of {len(stored):,} images of {split} are broken and left out"
        print(f"data: {text}: {names}", file=sys.stderr, flush=True)
        return np.setdiff1d(np.arange(len(stored)), broken)

    def _size(self, split: str) -> int:
        """Without the broken ones, which takes a look at all."""
        if self._broken == "skip":
            return len(self.open(split))
        return sum(piece.stop - piece.start for piece in self._pieces[split])

    def _first_size(self) -> Size:
        """Images of undeclared size: the first good one speaks, and the others are held to it."""
        stored = self._stored.select(next(iter(self._pieces.values())))
        if isinstance(stored, Pixels):
            height, width = stored.images.shape[1:3]
            return height, width
        for i in range(len(stored)):
            (data,), _ = stored.fetch([i])
            try:
                return image_size(data, stored.name(i))
            except BrokenImage as error:
                self._refuse(error)
        raise ValueError(f"data.name: {self._stored.name} has no image that can be read.")

    def _fingerprint(self) -> str:
        left_out = {split: broken for split, broken in self._left_out.items() if broken}
        if not left_out:
            return self._stored.fingerprint
        return digest(self._stored.fingerprint, json.dumps(left_out))


def checked(image: np.ndarray, shape: tuple[int, int, int], name: str) -> np.ndarray:
    """The image; ValueError if it has another shape than the others."""
    if image.shape != shape:
        raise ValueError(
            f"{name} has shape {image.shape}, not {shape}: images must have one size; set "
            f"data.image_size, such as {shape[0]} {shape[1]}."
        )
    return image
