"""Answers on disk: one file for some thousand examples in one view.

    cache.json                          what the answers belong to
    view-00003/part-00000.9f2c….npy     records in the order of the split; the name ends with the
                                        beginning of the content's SHA-256

A file appears under its name when it is whole, so any number of processes on any number of hosts
may write at once, and whoever was stopped leaves nothing that counts. Contents are compared with
their names when a file is opened.
"""

import hashlib
import io
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np

from kdjax import __version__
from kdjax.cache.answers import record
from kdjax.cache.origin import Origin, check_same
from kdjax.drafts import drafted
from kdjax.experiment import Data
from kdjax.experiment.json import from_dict, read_json, to_dict

PART_BYTES = 32 * 1024**2
"""About how large a file becomes."""
OPEN_PARTS = 256
"""Files that are kept open."""


class Part(NamedTuple):
    """Some examples in one view."""

    view: int
    number: int


class Missing(KeyError):
    """A part that is not there."""


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """The content of `cache.json`."""

    kdjax: str
    """The version that began it."""
    origin: Origin
    """What the answers belong to."""
    examples: int
    """In the split."""
    width: int
    """Of the teacher's embedding."""
    part: int
    """Examples a file holds, the last of a view fewer."""
    teacher: str
    """The run directory the teacher came from; to find it again, no more."""
    step: int
    """Its checkpoint."""
    data: Data
    """To find the images again."""


class Store:
    """A directory of answers."""

    def __init__(self, directory: Path) -> None:
        """ValueError if there is none."""
        self.directory, path = directory, directory / "cache.json"
        if not path.is_file():
            raise ValueError(f"{directory} holds no cache; build one with `kdjax cache build`.")
        try:
            self.manifest = from_dict(read_json(path), Manifest, str(path))
        except ValueError as error:
            raise ValueError(
                f"{error}\nIf another version of kdjax wrote it, build the cache anew, in another "
                "directory."
            ) from error
        origin = self.manifest.origin
        self.record = record(origin.kept, origin.model.num_classes, self.manifest.width)
        self._opened = lru_cache(maxsize=OPEN_PARTS)(self.load)

    @property
    def origin(self) -> Origin:
        """What the answers belong to."""
        return self.manifest.origin

    def parts(self, views: int) -> list[Part]:
        """Every part of that many views."""
        parts = -(-self.manifest.examples // self.manifest.part)
        return [Part(view, number) for view in range(views) for number in range(parts)]

    def examples(self, part: Part) -> np.ndarray:
        """Which examples it holds."""
        start = part.number * self.manifest.part
        return np.arange(start, min(start + self.manifest.part, self.manifest.examples))

    def views(self) -> int:
        """How many views have any part."""
        return 1 + max((part.view for part, _ in self.files()), default=-1)

    def files(self) -> Iterator[tuple[Part, Path]]:
        """Every part that is there."""
        for path in sorted(self.directory.glob("view-*/part-*.npy")):
            view, number = path.parent.name.split("-")[1], path.name.split("-")[1].split(".")[0]
            yield Part(int(view), int(number)), path

    def find(self, part: Part) -> Path | None:
        """The file of a part, if it is there."""
        return next(iter(find_named(place(self.directory, part))), None)

    def write(self, part: Part, records: np.ndarray) -> None:
        """All or nothing. ValueError for what float16 cannot hold."""
        check_finite(records)
        save_named(place(self.directory, part), records)

    def has(self, view: np.ndarray, index: np.ndarray) -> bool:
        """Whether all of these answers are there."""
        try:
            for pair in np.unique(self.places(view, index), axis=0):
                self._opened(Part(*pair.tolist()))
        except Missing:
            return False
        return True

    def read(self, view: np.ndarray, index: np.ndarray) -> np.ndarray:
        """The records of these examples, which must be there."""
        places = self.places(view, index)
        records = np.empty(len(index), self.record)
        for pair in np.unique(places, axis=0):
            rows = (places == pair).all(axis=1)
            part = Part(*pair.tolist())
            first = part.number * self.manifest.part
            records[rows] = self._opened(part)[index[rows] - first]
        return records

    def places(self, view: np.ndarray, index: np.ndarray) -> np.ndarray:
        """View and number of each one's part, `[n, 2]`."""
        shown = view if self.origin.augment else np.zeros_like(view)
        return np.stack([shown, index // self.manifest.part], axis=1).astype(np.int64)

    def load(self, part: Part) -> np.ndarray:
        """A part, mapped; `Missing` if it is not there, ValueError if it is damaged."""
        path = self.find(part)
        if path is None:
            raise Missing(part)
        records = load_named(path, self.record)
        if len(records) != len(self.examples(part)):
            raise ValueError(f"{path} is no part of this cache; delete it.")
        return records


def create(directory: Path, manifest: Manifest) -> Store:
    """The store in a directory: a new one, or the one that is there if it is of the same origin."""
    path = directory / "cache.json"
    if not path.exists():
        if directory.exists() and any(directory.iterdir()):
            raise ValueError(
                f"teacher.cache.directory: {directory} exists and is no cache; name another."
            )
        directory.mkdir(parents=True, exist_ok=True)
        with drafted(path) as draft:
            draft.write_text(json.dumps(to_dict(manifest), indent=2) + "\n")
    store = Store(directory)
    check_same(str(directory), store.origin, manifest.origin)
    return store


def manifest_of(
    origin: Origin, *, examples: int, width: int, teacher: str, step: int, data: Data
) -> Manifest:
    """What a new cache begins with."""
    size = record(origin.kept, origin.model.num_classes, width).itemsize
    return Manifest(
        kdjax=__version__,
        origin=origin,
        examples=examples,
        width=width,
        part=max(1, PART_BYTES // size),
        teacher=teacher,
        step=step,
        data=data,
    )


def check_finite(records: np.ndarray) -> None:
    """Raise ValueError for answers that are not, or that float16 cannot hold."""
    for name in records.dtype.names or ():
        if not np.isfinite(records[name].astype(np.float32)).all():
            raise ValueError(
                f"the teacher's {name} are not finite, or too large for float16: its answers "
                "cannot be kept; leave out teacher.cache."
            )


def place(directory: Path, part: Part, kind: str = "part") -> Path:
    """Where files of a part lie, and how their names begin."""
    return directory / f"view-{part.view:05d}" / f"{kind}-{part.number:05d}"


def save_named(beginning: Path, records: np.ndarray) -> None:
    """All or nothing, under a name that ends with the beginning of the content's SHA-256."""
    content = io.BytesIO()
    np.save(content, np.ascontiguousarray(records), allow_pickle=False)
    data = content.getbuffer()
    with drafted(beginning.with_name(f"{beginning.name}.{_digest(data)}.npy")) as draft:
        draft.write_bytes(data)


def find_named(beginning: Path) -> list[Path]:
    """All that was saved under it."""
    return sorted(beginning.parent.glob(f"{beginning.name}.*.npy"))


def load_named(path: Path, dtype: np.dtype) -> np.ndarray:
    """What `save_named` saved, mapped; ValueError if it is damaged or of another type."""
    if _digest(path.read_bytes()) != path.name.split(".")[1]:
        raise ValueError(f"{path} is damaged; delete it, and `kdjax cache build` mends it.")
    records = np.load(path, mmap_mode="r", allow_pickle=False)
    if records.dtype != dtype:
        raise ValueError(f"{path} is no part of this cache; delete it.")
    return records


def to_records(answers: Mapping[str, np.ndarray], dtype: np.dtype) -> np.ndarray:
    """Arrays by name as records; they are of its types, so that nothing is narrowed unseen."""
    records = np.empty(len(next(iter(answers.values()))), dtype)
    for name, values in answers.items():
        np.copyto(records[name], values, casting="no")
    return records


def from_records(records: np.ndarray) -> dict[str, np.ndarray]:
    """Records as arrays by name."""
    return {name: np.ascontiguousarray(records[name]) for name in records.dtype.names or ()}


def _digest(data: bytes | memoryview) -> str:
    return hashlib.sha256(data).hexdigest()[:16]
