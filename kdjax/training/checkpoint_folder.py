"""One checkpoint on disk: how it is written, and verified when it is read. Knows no neighbours.

`<step>/` has a folder of arrays for each item, and `meta.json` with a SHA-256 of each of their
files and of itself: Orbax restores flipped bits without a word. The bytes decide, not Orbax: they
are other than noted, which is `Damaged`, or they could not be had, which is `Unreachable`.
"""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from kdjax.training.array_files import read_arrays, reason, write_arrays

META = "meta.json"
"""What is noted beside the arrays; written last."""


class Damaged(ValueError):
    """What is there is not what was written."""

    def __init__(self, path: Path, what: str) -> None:
        super().__init__(f"checkpoint {path} is damaged: {what}")
        self.path = path


class Foreign(Damaged):
    """A numbered folder that was never written as the checkpoint of that step."""


class Unreachable(OSError):
    """What is there could not be read, and may well be whole."""

    def __init__(self, path: Path, error: Exception) -> None:
        super().__init__(f"{path} could not be read ({reason(error)}); try again.")


def write_checkpoint(path: Path, items: Mapping[str, Any], meta: Mapping[str, Any]) -> None:
    """Write a new folder. Raises whatever the storage raises."""
    path.mkdir()
    write_arrays(path, items)
    files = {name: _digests(path / name) for name in items}
    (path / META).write_bytes(_sealed({**meta, "files": files}))


class CheckpointFolder:
    """A folder that may hold the checkpoint of the step it is named by."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def meta(self) -> dict[str, Any]:
        """What was noted, and `files`: by item and name, the SHA-256 of each."""
        with self._reading(META) as path:
            content = path.read_bytes()
        meta = _unsealed(content)
        if meta is None:
            raise Damaged(self.path, f"{META} changed on disk")
        if meta["step"] != int(self.path.name):
            raise Foreign(self.path, f"it is a copy of step {meta['step']}")
        return meta

    def item(self, name: str) -> Any:
        """One of its trees, verified."""
        self._verify(name, self.meta()["files"][name])
        path = self.path / name
        try:
            return read_arrays(path)
        except Exception as error:  # whatever the storage raises, of files that are as written
            raise Unreachable(path, error) from error

    def verify(self) -> None:
        """Look at every file, for what `meta` and `item` would raise."""
        for name, files in self.meta()["files"].items():
            self._verify(name, files)

    def _verify(self, name: str, files: Mapping[str, str]) -> None:
        for file, expected in files.items():
            with self._reading(f"{name}/{file}") as path:
                found = _digest(path)
            if found != expected:
                raise Damaged(self.path, f"{name}/{file} changed on disk")

    @contextmanager
    def _reading(self, name: str) -> Iterator[Path]:
        """One of its files: damaged where it is missing, unless all was deleted meanwhile."""
        path = self.path / name
        try:
            yield path
        except OSError as error:
            missing = isinstance(error, FileNotFoundError | NotADirectoryError | IsADirectoryError)
            if missing and os.path.lexists(self.path):
                kind = Foreign if name == META else Damaged
                raise kind(self.path, f"{name} is missing") from error
            raise Unreachable(path, error) from error


def _digests(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): _digest(path) for path in files}


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sealed(meta: Mapping[str, Any]) -> bytes:
    seal = hashlib.sha256(json.dumps(meta).encode()).hexdigest()
    return json.dumps({**meta, "sha256": seal}, indent=2).encode() + b"\n"


def _unsealed(content: bytes) -> dict[str, Any] | None:
    """None unless it is to the byte what was sealed."""
    try:
        meta = json.loads(content)
        del meta["sha256"]
    except (ValueError, KeyError, TypeError):
        return None
    return meta if _sealed(meta) == content else None
