"""Where examples come from: random access to the decoded images of one split.

Knows TFDS and image files; nothing of batches, epochs or devices. No TensorFlow: TFDS hands over
the encoded bytes of each record and Pillow decodes them.
"""

import contextlib
import fcntl
import io
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

IN_MEMORY_BYTES = 4 * 1024**3
"""A split that decodes to less than this is decoded once and kept."""


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


class Arrays:
    """A split in memory."""

    def __init__(self, images: np.ndarray, labels: np.ndarray) -> None:
        self.images, self.labels = images, labels.astype(np.int32)

    def __len__(self) -> int:
        return len(self.labels)

    def read(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Images uint8 `[n, H, W, C]` and labels int32 `[n]`, by one vectorised gather."""
        return self.images[indices], self.labels[indices]


class Records:
    """A split on disk, decoded when it is read."""

    def __init__(self, records: Any, shape: tuple[int, int, int], keys: tuple[str, str]) -> None:
        self._records, self._shape, self._keys = records, shape, keys
        self._pool = ThreadPoolExecutor(thread_name_prefix="decode")

    def __len__(self) -> int:
        return len(self._records)

    def read(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """As `Arrays.read`; decoded in threads, since Pillow lets go of the interpreter lock."""
        image_key, label_key = self._keys
        records = self._records.__getitems__([int(i) for i in indices])
        encoded = [record[image_key] for record in records]
        images = np.empty((len(encoded), *self._shape), np.uint8)
        for i, image in enumerate(self._pool.map(self._decode, encoded)):
            if image.shape != self._shape:
                raise ValueError(
                    f"example {indices[i]} has shape {image.shape}, not {self._shape}: kdjax needs "
                    "images of one size; resize them when the data set is prepared."
                )
            images[i] = image
        return images, np.array([record[label_key] for record in records], np.int32)

    def _decode(self, data: bytes) -> np.ndarray:
        channels = self._shape[-1]
        with Image.open(io.BytesIO(data)) as image:
            pixels = np.asarray(image.convert("L" if channels == 1 else "RGB"))
        return pixels.reshape(*pixels.shape[:2], channels)


Source = Arrays | Records
"""Random access to one split: `len(source)`, and `source.read(indices)` for images and labels."""


class DataSet:
    """A prepared TFDS data set: its description, and its splits on demand."""

    def __init__(self, name: str, directory: str | None, splits: dict[str, str]) -> None:
        """`splits` maps train, validation and test to split expressions of TFDS."""
        self._builder = _prepare_digits(directory) if name == "digits" else _open(name, directory)
        self._splits = splits
        self._keys = self._supervised_keys(name)
        image_key, label_key = self._keys
        features = self._builder.info.features
        shape = tuple(features[image_key].shape)
        if None in shape:
            shape = self._common_shape(next(iter(splits.values())), shape[-1])
        self.info = DataInfo(
            name=name,
            shape=shape,
            classes=tuple(features[label_key].names),
            sizes={key: self._size(key) for key in splits},
        )

    def open(self, split: str) -> Source:
        """The examples of `train`, `validation` or `test`."""
        source = Records(self._data_source(self._splits[split]), self.info.shape, self._keys)
        if len(source) * int(np.prod(self.info.shape)) > IN_MEMORY_BYTES:
            return source
        return Arrays(*source.read(np.arange(len(source))))

    def _data_source(self, expression: str) -> Any:
        decoders = {self._keys[0]: tfds.decode.SkipDecoding()}
        return self._builder.as_data_source(expression, decoders=decoders)

    def _size(self, key: str) -> int:
        expression = self._splits[key]
        try:
            size = int(self._builder.info.splits[expression].num_examples)
        except (KeyError, ValueError) as error:
            have = ", ".join(self._builder.info.splits)
            raise ValueError(
                f"data.{key}: {expression!r} is no split of {self._builder.name}; it has {have}, "
                "and slices of them such as train[:90%]."
            ) from error
        if size == 0:
            raise ValueError(f"data.{key}: {expression!r} of {self._builder.name} is empty.")
        return size

    def _supervised_keys(self, name: str) -> tuple[str, str]:
        features = self._builder.info.features
        keys = self._builder.info.supervised_keys or ("image", "label")
        kinds = [type(features[key]) if key in features else None for key in keys]
        if kinds != [tfds.features.Image, tfds.features.ClassLabel]:
            raise ValueError(f"data.name: {name} is not an image classification data set.")
        return keys[0], keys[1]

    def _common_shape(self, expression: str, channels: int | None) -> tuple[int, int, int]:
        """Images of undeclared size: the first one speaks, and `Records` holds it to its word."""
        record = self._data_source(expression)[0]
        with Image.open(io.BytesIO(record[self._keys[0]])) as image:
            return (image.height, image.width, channels or 3)


def _prepare_digits(directory: str | None) -> Any:
    with tfds.core.registered.skip_registration():
        from kdjax.data.digits import KdjaxDigits

        builder = KdjaxDigits(data_dir=directory, file_format="array_record")
        if builder.is_prepared():
            return builder
        with _alone(Path(builder.data_path).parent):
            builder = KdjaxDigits(data_dir=directory, file_format="array_record")
            if not builder.is_prepared():  # by another process, meanwhile
                tfds.disable_progress_bar()
                # TFDS announces a download there is not.
                with contextlib.redirect_stdout(io.StringIO()):
                    builder.download_and_prepare()
        return builder


@contextlib.contextmanager
def _alone(directory: Path) -> Iterator[None]:
    """One process of this machine at a time; the others wait."""
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / ".lock").open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _open(name: str, directory: str | None) -> Any:
    """A data set prepared before; nothing is ever downloaded."""
    wanted = name.removeprefix("tfds:")
    try:
        builder = tfds.builder(wanted, data_dir=directory, try_gcs=False)
    except tfds.core.DatasetNotFoundError as error:
        raise ValueError(
            f"data.name: TFDS knows no data set {wanted!r}, and none of that name is prepared in "
            f"{directory or 'its default directory'}."
        ) from error
    if not builder.is_prepared():
        raise ValueError(
            f"data.name: {wanted} is not prepared in {builder.data_path}; prepare it once with "
            f"`tfds build {wanted} --file_format=array_record`, or set data.directory."
        )
    return builder
