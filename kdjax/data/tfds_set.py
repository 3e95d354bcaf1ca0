"""Data sets of TFDS, read without TensorFlow, and the digits, which prepare themselves."""

import contextlib
import fcntl
import functools
import hashlib
import io
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from kdjax.data.splits import Piece
from kdjax.data.stored import UNLABELLED

CHUNK = 1024
"""Records that are read together where all are."""


class TfdsSet:
    """A prepared data set."""

    def __init__(self, name: str, directory: str | None) -> None:
        """`name` is `digits`, or what TFDS calls it; nothing is ever downloaded."""
        self._builder = _prepare_digits(directory) if name == "digits" else _open(name, directory)
        info = self._builder.info
        self.name = name
        self._image, self._label = _supervised_keys(name, info)
        height, width, channels = info.features[self._image].shape
        self.channels = 1 if channels == 1 else 3
        self.size = None if None in (height, width) else (height, width)
        self.classes = tuple(info.features[self._label].names)
        self.sizes = {split: int(info.splits[split].num_examples) for split in info.splits}
        self.fingerprint = self._fingerprint()

    @functools.cached_property
    def unlabelled(self) -> frozenset[str]:
        """Splits that begin with -1, as TFDS says that there is no label."""
        return frozenset(split for split, size in self.sizes.items() if size and self._bare(split))

    def _bare(self, split: str) -> bool:
        decoders = {self._image: tfds.decode.SkipDecoding()}
        first = self._builder.as_data_source(f"{split}[:1]", decoders=decoders)[0]
        return int(first[self._label]) == UNLABELLED

    def select(self, pieces: Sequence[Piece]) -> "TfdsRecords":
        """The records of these pieces."""
        decoders = {self._image: tfds.decode.SkipDecoding()}
        expression = "+".join(f"{p.split}[{p.start}:{p.stop}]" for p in pieces)
        records = self._builder.as_data_source(expression, decoders=decoders)
        stamp = f"{self.fingerprint} {expression} {self._files()}"
        bare = any(piece.split in self.unlabelled for piece in pieces)
        labels = range(UNLABELLED if bare else 0, len(self.classes))
        name = f"{self.name} {expression}"
        return TfdsRecords(records, self._image, self._label, labels, name, stamp)

    def _files(self) -> str:
        """Where they lie, their sizes and times: what shows that they were written anew."""
        folder = self._builder.data_path
        stats = {path.name: path.stat() for path in sorted(folder.iterdir())}
        return f"{folder} {[(name, stat.length, stat.mtime) for name, stat in stats.items()]}"

    def _fingerprint(self) -> str:
        """Version, configuration, classes, and what is in each file: all that TFDS remembers."""
        info = self._builder.info
        parts = [info.full_name, *self.classes]
        for split in sorted(info.splits):
            parts += [split, *map(str, info.splits[split].shard_lengths)]
            parts.append(str(info.splits[split].num_bytes))
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()


class TfdsRecords:
    """Records of a data set."""

    def __init__(
        self, records: Any, image: str, label: str, labels: range, name: str, stamp: str
    ) -> None:
        """`image` and `label` are names in a record; `labels` those that may occur."""
        self._records, self._image, self._label = records, image, label
        self._known, self._name, self.stamp = labels, name, stamp

    def __len__(self) -> int:
        return len(self._records)

    @functools.cached_property
    def labels(self) -> np.ndarray:
        """All labels, int32 `[n]`; every record is read."""
        starts = range(0, len(self), CHUNK)
        parts = [self.fetch(range(i, min(i + CHUNK, len(self))))[1] for i in starts]
        return np.concatenate(parts)

    def fetch(self, indices: Sequence[int]) -> tuple[list[bytes], np.ndarray]:
        """Encoded images and labels; ValueError for a label that may not occur."""
        records = self._records.__getitems__([int(i) for i in indices])
        labels = np.array([record[self._label] for record in records], np.int32)
        for i, label in zip(indices, labels.tolist(), strict=True):
            if label not in self._known:
                raise ValueError(
                    f"{self.name(i)}: {label} is none of {self._known.stop} classes; choose a "
                    "split whose images all have labels, or none of them."
                )
        return [record[self._image] for record in records], labels

    def name(self, index: int) -> str:
        """Which record of which split."""
        return f"record {index} of {self._name}"


def _supervised_keys(name: str, info: Any) -> tuple[str, str]:
    keys = info.supervised_keys or ("image", "label")
    kinds = [type(info.features[key]) if key in info.features else None for key in keys]
    if kinds != [tfds.features.Image, tfds.features.ClassLabel]:
        raise ValueError(f"data.name: {name} is not an image classification data set.")
    return keys[0], keys[1]


def _prepare_digits(directory: str | None) -> Any:
    with tfds.core.registered.skip_registration():
        from kdjax.data.digits import KdjaxDigits

        builder = KdjaxDigits(data_dir=directory, file_format="array_record")
        if builder.is_prepared():
            return builder
        with alone(Path(builder.data_path).parent):
            builder = KdjaxDigits(data_dir=directory, file_format="array_record")
            if not builder.is_prepared():  # by another process, meanwhile
                tfds.disable_progress_bar()
                # TFDS announces a download there is not.
                with contextlib.redirect_stdout(io.StringIO()):
                    builder.download_and_prepare()
        return builder


@contextlib.contextmanager
def alone(directory: Path, text: str = "") -> Iterator[None]:
    """One process of this machine at a time; the others wait, and say so with `text`."""
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / ".lock").open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if text:
                print(text, file=sys.stderr, flush=True)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _open(name: str, directory: str | None) -> Any:
    wanted = name.removeprefix("tfds:")
    try:
        builder = tfds.builder(wanted, data_dir=directory, try_gcs=False)
    except tfds.core.DatasetNotFoundError as error:
        raise ValueError(
            f"data.name: TFDS knows no data set {wanted!r}, and none of that name is prepared in "
            f"{directory or 'its default directory'}."
        ) from error
    if not builder.is_prepared():
        where = f" --directory {directory}" if directory else ""
        raise ValueError(
            f"data.name: {wanted} is not prepared in {builder.data_path}; prepare it once with "
            f"`kdjax data prepare {wanted}{where}`, or set data.directory."
        )
    return builder
