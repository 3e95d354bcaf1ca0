"""Files and folders that are there whole or not at all, after a crash or a power cut too."""

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def drafted(path: Path) -> Iterator[Path]:
    """A place to write a file or a folder at, which becomes `path` when the block ends well.

    What was there before is replaced. All is on the disk, not in its cache only, before the name
    changes hands; of several writers the last one wins. A block that fails leaves nothing.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = _beside(path)
    try:
        yield draft
        for part in [*draft.rglob("*"), draft]:
            _sync(part)
        if path.is_dir():
            _replace_folder(path, draft)
        else:
            os.replace(draft, path)
        _sync(path.parent)
    finally:
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
