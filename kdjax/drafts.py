"""Files and folders that are there whole or not at all, after a crash or a power cut too."""

import os
import secrets
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def drafted(path: Path) -> Iterator[Path]:
    """A place to write a file or a folder at, which becomes `path` when the block ends well.

    What was there before is replaced. All is on the disk, not in its cache only, before the name
    changes hands; of several writers the last one wins. A block that fails leaves nothing.
    """
    make_folder(path.parent)
    draft = _beside(path)
    try:
        yield draft
        with ThreadPoolExecutor() as together:  # takes a disk hardly longer than one of them
            list(together.map(_sync, draft.rglob("*")))
        _sync(draft)
        if path.is_dir():
            _replace_folder(path, draft)
        else:
            os.replace(draft, path)
        _sync(path.parent)
    finally:
        _remove(draft)


def make_folder(path: Path) -> None:
    """A folder, with those above it."""
    if not path.is_dir():
        make_folder(path.parent)
        path.mkdir(exist_ok=True)
        _sync(path.parent)


def move(path: Path, to: Path) -> None:
    """Another name, within one folder."""
    os.replace(path, to)
    _sync(path.parent)


def discard(path: Path) -> None:
    """Delete a folder: its name goes first, so that half of it is never found under it."""
    old = _beside(path)
    move(path, old)
    _remove(old)


def sweep(folder: Path) -> None:
    """Delete what a crash has left: of drafts in the making, and of what was being deleted."""
    for draft in folder.glob(".*.tmp"):
        _remove(draft)


def _beside(path: Path) -> Path:
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")


def _replace_folder(path: Path, draft: Path) -> None:
    old = _beside(path)  # a folder that is not empty cannot be renamed over
    os.replace(path, old)
    os.replace(draft, path)
    _remove(old)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
