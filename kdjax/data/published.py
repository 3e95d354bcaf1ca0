"""How the files that data sets are published in become examples, as TFDS's own builders do it.

Only the reading is ours, since theirs needs TensorFlow. Must not know which files are the right
ones, nor where they come from.
"""

import gzip
import hashlib
import io
import tarfile
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

Example = tuple[int | str, dict[str, Any]]
Splits = dict[str, Iterator[Example]]
Contents = Mapping[str, bytes]
"""Files by name."""

CHUNK = 1024
"""Images that are encoded together."""
FAST = 1
"""Effort of PNG's compression: three times as fast as the usual 6, for files a tenth larger."""


@dataclass(frozen=True)
class Extracted:
    """A published file as it lies in its archive."""

    name: str
    size: int | None = None
    """In bytes; None: whatever it has."""
    sha256: str | None = None
    """None: nobody published one."""

    def check(self, content: bytes, where: Path) -> None:
        """ValueError if this is another file, or half of it."""
        if self.size not in (None, len(content)):
            short = " (truncated)" if len(content) < (self.size or 0) else ""
            raise ValueError(f"{where} has {len(content):,} bytes, not {self.size:,}{short}.")
        if self.sha256 not in (None, hashlib.sha256(content).hexdigest()):
            raise ValueError(f"{where} is damaged, or another file: its SHA-256 is not as known.")


class Published(ABC):
    """Files of known names, which hold all examples."""

    files: tuple[Extracted, ...]

    def read(self, folder: Path) -> Contents:
        """The files as they lie in a folder; ValueError if one is missing or damaged."""
        contents = {}
        for file in self.files:
            path = folder / file.name
            if not path.is_file():
                raise ValueError(f"{path} is missing.")
            contents[file.name] = path.read_bytes()
            file.check(contents[file.name], path)
        return contents

    @abstractmethod
    def unpack(self, archives: Sequence[Path]) -> Contents:
        """The files out of their archives."""

    @abstractmethod
    def examples(self, contents: Contents, builder: Any) -> Splits:
        """Examples by split."""

    def splits(self, where: Path | Sequence[Path], builder: Any) -> Splits:
        """Examples by split, of a folder or of archives."""
        contents = self.read(where) if isinstance(where, Path) else self.unpack(where)
        return self.examples(contents, builder)


class Mnist(Published):
    """Four files of IDX: a head that says how large an array is, and its bytes (LeCun, 1998)."""

    def __init__(self, sizes: Sequence[int], sums: Sequence[str | None] = (None,) * 4) -> None:
        """Of training images and labels, then of those for the test."""
        self.files = tuple(map(Extracted, IDX_FILES, sizes, sums))

    def urls(self, builder: Any) -> list[str]:
        """Where TFDS finds the archives."""
        return [f"{builder.URL}{name}.gz" for name in IDX_FILES]

    def folder(self, directory: Path, builder: Any) -> Path | None:
        """Where the extracted files lie, if they do."""
        return directory if (directory / IDX_FILES[0]).is_file() else None

    def unpack(self, archives: Sequence[Path]) -> Contents:
        """The files out of their archives."""
        unpacked = zip(IDX_FILES, archives, strict=True)
        return {name: gzip.decompress(path.read_bytes()) for name, path in unpacked}

    def examples(self, contents: Contents, builder: Any) -> Splits:
        """Examples by split."""
        return {
            "train": self._examples(contents, *IDX_FILES[:2]),
            "test": self._examples(contents, *IDX_FILES[2:]),
        }

    def _examples(self, contents: Contents, images: str, labels: str) -> Iterator[Example]:
        pixels, label = _idx(contents[images]), _idx(contents[labels])
        for i, image in enumerate(png(pixels)):
            yield i, {"image": image, "label": int(label[i])}


IDX_FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)


class Cifar(Published):
    """Records of labels and of the planes of 32x32 pixels (Krizhevsky, 2009)."""

    def __init__(self, *files: Extracted) -> None:
        self.files = files

    def urls(self, builder: Any) -> list[str]:
        """Where TFDS finds the archive."""
        return [builder._cifar_info.url]

    def folder(self, directory: Path, builder: Any) -> Path | None:
        """Where the extracted files lie, if they do."""
        for folder in (directory, directory / builder._cifar_info.prefix):
            if (folder / self.files[0].name).is_file():
                return folder
        return None

    def unpack(self, archives: Sequence[Path]) -> Contents:
        """The files out of their archives."""
        wanted = {file.name for file in self.files}
        found = {}
        with tarfile.open(archives[0]) as archive:
            for member in archive:
                name = Path(member.name).name
                if member.isfile() and name in wanted:
                    found[name] = _content(archive, member)
        return found

    def examples(self, contents: Contents, builder: Any) -> Splits:
        """Examples by split."""
        layout = builder._cifar_info
        for key, name in zip(layout.label_keys, layout.label_files, strict=True):
            text = contents[name].decode()
            builder.info.features[key].names = [x for x in text.split("\n") if x]
        files = {"train": layout.train_files, "test": layout.test_files}
        return {
            split: self._examples([contents[x] for x in names], f"{split}_", layout.label_keys)
            for split, names in files.items()
        }

    def _examples(
        self, files: Sequence[bytes], prefix: str, keys: Sequence[str]
    ) -> Iterator[Example]:
        rows = np.frombuffer(b"".join(files), np.uint8).reshape(-1, len(keys) + 3072)
        pixels = rows[:, len(keys) :].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
        for i, image in enumerate(png(pixels)):
            labels = dict(zip(keys, map(int, rows[i]), strict=False))
            yield i, {"id": f"{prefix}{i:05d}", "image": image, **labels}


class Imagenette:
    """Ten classes of ImageNet as JPEG files in folders (Howard, 2019)."""

    FOLDERS: Mapping[str, str] = {"train": "train", "validation": "val"}
    COUNTS: Mapping[str, tuple[int, int]] = {
        "imagenette": (12_894, 500),
        "imagenette2": (9_469, 3_925),
    }
    """Images for training and validation."""

    def urls(self, builder: Any) -> list[str]:
        """Where TFDS finds the archive."""
        name = f"{builder.builder_config.dirname}.tgz"
        return [url for url in builder.url_infos if url.endswith(f"/{name}")]

    def folder(self, directory: Path, builder: Any) -> Path | None:
        """Where the extracted files lie, if they do."""
        name = builder.builder_config.dirname
        folder = directory if directory.name == name else directory / name
        return folder if all((folder / x).is_dir() for x in self.FOLDERS.values()) else None

    def splits(self, where: Path | Sequence[Path], builder: Any) -> Splits:
        """Examples by split, of a folder or of an archive."""
        counts = self.COUNTS[builder.builder_config.dirname.partition("-")[0]]
        return {
            split: _complete(
                _folder_files(where, folder)
                if isinstance(where, Path)
                else _archive_files(where[0], folder),
                count,
                f"{builder.name} {split}",
            )
            for (split, folder), count in zip(self.FOLDERS.items(), counts, strict=True)
        }


def _complete(examples: Iterator[Example], count: int, name: str) -> Iterator[Example]:
    """The examples; ValueError at the end if some are missing."""
    number = 0
    for example in examples:
        yield example
        number += 1
    if number != count:
        raise ValueError(f"{name} has {number:,} images, not {count:,}: files are missing.")


def png(images: np.ndarray) -> Iterator[bytes]:
    """Each of `[n, H, W]` or `[n, H, W, 3]` as PNG; in threads, and a few ahead."""

    def encode(image: np.ndarray) -> bytes:
        file = io.BytesIO()
        Image.fromarray(image).save(file, "PNG", compress_level=FAST)
        return file.getvalue()

    with ThreadPoolExecutor(thread_name_prefix="encode") as pool:
        for start in range(0, len(images), CHUNK):
            yield from pool.map(encode, images[start : start + CHUNK])


def _idx(data: bytes) -> np.ndarray:
    rank = data[3]
    shape = np.frombuffer(data, ">i4", rank, 4)
    return np.frombuffer(data, np.uint8, offset=4 + 4 * rank).reshape(shape)


def _content(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = archive.extractfile(member)
    assert file is not None, member.name
    return file.read()


def _folder_files(root: Path, folder: str) -> Iterator[Example]:
    for path in sorted((root / folder).glob("*/*.JPEG")):
        yield path.name, {"image": path.read_bytes(), "label": path.parent.name}


def _archive_files(path: Path, folder: str) -> Iterator[Example]:
    with tarfile.open(path) as archive:
        for member in archive:
            name = Path(member.name)
            if member.isfile() and name.suffix == ".JPEG" and name.parts[-3] == folder:
                yield name.name, {"image": _content(archive, member), "label": name.parts[-2]}
