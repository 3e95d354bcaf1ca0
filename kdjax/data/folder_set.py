"""A folder of image files: `train/<class>/*.jpg`, `val/<class>/*.jpg`, `test/<class>/*.jpg`."""

import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from kdjax.data.splits import Piece
from kdjax.data.stored import UNLABELLED

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".gif", ".tif", ".tiff")
"""Of image files, in any case; other files are left alone."""
SPLITS = {"train": "train", "val": "validation", "validation": "validation", "test": "test"}
"""What a split is called, by the folder it lies in."""


class ImageFile(NamedTuple):
    """An image, before it is read."""

    path: str
    """Relative to the folder of the split."""
    bytes: int
    modified: int
    """In nanoseconds."""
    label: int


class FolderSet:
    """The images of a folder.

    Classes are sorted by name. Images are in the order of a digest of class and name: as random as
    the records of TFDS, so that `train[:90%]` has of all classes, and yet the same on every file
    system, wherever the folder lies and whatever is added to it.
    """

    def __init__(self, name: str, directory: str | None) -> None:
        """`name` is `folder:DIR`, relative to the directory."""
        self.name = name
        self._root = Path(directory or "") / name.removeprefix("folder:")
        if not self._root.is_dir():
            raise self._error("is no folder" if self._root.exists() else "does not exist")
        self._folders = self._split_folders()
        listed = {split: _class_folders(folder) for split, folder in self._folders.items()}
        self.unlabelled = frozenset(split for split, names in listed.items() if not names)
        self.classes = self._common_classes(listed)
        self.files = {split: self._list(split) for split in self._folders}
        self.sizes = {split: len(files) for split, files in self.files.items()}
        self.channels = 3
        self.size: tuple[int, int] | None = None
        self.fingerprint = self._fingerprint()

    def select(self, pieces: Sequence[Piece]) -> "Files":
        """The images of these pieces."""
        return Files(
            [
                (self._folders[piece.split], file)
                for piece in pieces
                for file in self.files[piece.split][piece.start : piece.stop]
            ]
        )

    def path(self, split: str, file: ImageFile) -> Path:
        """Where an image lies."""
        return self._folders[split] / file.path

    def _split_folders(self) -> dict[str, Path]:
        found: dict[str, Path] = {}
        for name, split in SPLITS.items():
            if (self._root / name).is_dir():
                if split in found:
                    raise self._error("has both val and validation; leave one of them")
                found[split] = self._root / name
        if not found:
            have = _few(sorted(p.name for p in self._root.iterdir() if p.is_dir()))
            raise self._error(
                f"has none of the folders train, val, validation, test; it has {have}"
            )
        return found

    def _common_classes(self, listed: Mapping[str, list[str]]) -> tuple[str, ...]:
        labelled = {split: names for split, names in listed.items() if names}
        if not labelled:
            raise self._error(
                "has no class folders, such as train/cat/1.jpg; without labels it takes at least "
                "a val and a test that have them"
            )
        first, classes = next(iter(labelled.items()))
        for split, names in labelled.items():
            parts = [
                f"only {a} has {_few(sorted(set(x) - set(y)))}"
                for a, b, x, y in ((first, split, classes, names), (split, first, names, classes))
                if set(x) - set(y)
            ]
            if parts:
                raise self._error(
                    f"has other classes in {first} than in {split}: {', and '.join(parts)}"
                )
        return tuple(classes)

    def _list(self, split: str) -> list[ImageFile]:
        folder = self._folders[split]
        loose = _images(folder, "", UNLABELLED, deep=split in self.unlabelled)
        if split in self.unlabelled:
            if not loose:
                kinds = " ".join(suffix[1:] for suffix in SUFFIXES)
                raise self._error(
                    f"has no images in {folder.name}: neither class folders nor "
                    f"files that end in one of {kinds}"
                )
            return sorted(loose, key=_place)
        if loose:
            raise self._error(
                f"has {len(loose)} images beside the class folders of {folder.name}, such as "
                f"{loose[0].path}; move them into a class"
            )
        files = []
        for label, name in enumerate(self.classes):
            here = _images(folder, name, label, deep=True)
            if not here:
                raise self._error(f"has no images in {folder.name}/{name}; fill or remove it")
            files += here
        return sorted(files, key=_place)

    def _fingerprint(self) -> str:
        digest = hashlib.sha256()
        for split, files in sorted(self.files.items()):
            for file in files:
                digest.update(
                    f"{split}/{file.path}\0{file.bytes}\n".encode("utf8", "surrogateescape")
                )
        return digest.hexdigest()

    def _error(self, text: str) -> ValueError:
        return ValueError(f"data.name: {self._root} {text}.")


class Files:
    """Image files in an order."""

    def __init__(self, files: Sequence[tuple[Path, ImageFile]]) -> None:
        self._files = files
        self.labels = np.array([file.label for _, file in files], np.int32)

    def __len__(self) -> int:
        return len(self._files)

    @property
    def stamp(self) -> str:
        """Paths, sizes and times of all files."""
        digest = hashlib.sha256()
        for folder, file in self._files:
            digest.update(f"{folder.resolve()}\0{file}\n".encode("utf8", "surrogateescape"))
        return digest.hexdigest()

    def fetch(self, indices: Sequence[int]) -> tuple[list[bytes], np.ndarray]:
        """Contents and labels."""
        return [self._path(i).read_bytes() for i in indices], self.labels[np.asarray(indices)]

    def name(self, index: int) -> str:
        """The path."""
        return str(self._path(index))

    def _path(self, index: int) -> Path:
        folder, file = self._files[index]
        return folder / file.path


def _place(file: ImageFile) -> bytes:
    return hashlib.sha256(file.path.encode("utf8", "surrogateescape")).digest()


def _class_folders(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))


def _images(folder: Path, below: str, label: int, *, deep: bool) -> list[ImageFile]:
    """Image files of a folder below another."""
    found = []
    for where, folders, names in os.walk(folder / below):
        if not deep:
            folders.clear()
        for name in names:
            if name.lower().endswith(SUFFIXES) and not name.startswith("."):
                path = Path(where, name)
                state = path.stat()
                relative = path.relative_to(folder).as_posix()
                found.append(ImageFile(relative, state.st_size, state.st_mtime_ns, label))
    return found


def _few(names: Sequence[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return (", ".join(names[:3]) or "nothing") + more
