"""Encoded images, read and decoded many at a time, and the broken ones among them.

Knows of a data set its encoded examples; nothing of splits, nor what is done with the images.
"""

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from kdjax.data.folder_set import Files
from kdjax.data.images import BrokenImage, Decoder
from kdjax.data.tfds_set import TfdsRecords
from kdjax.drafts import drafted
from kdjax.progress import tracked

CHUNK = 512
"""Images that are read together where all are."""

SMALL_BYTES = 4096
"""Encoded images smaller than this are decoded one after the other."""

Encoded = TfdsRecords | Files
"""Examples as encoded images: `fetch` has images and labels of some, `labels` those of all, `name`
what to call one in a message; the `stamp` changes when the files do."""


def mapper(pool: ThreadPoolExecutor, encoded: Sequence[bytes]) -> Callable[..., Iterator[Any]]:
    """How to map a decoder over images: in threads, unless they are small.

    Pillow lets go of the interpreter lock, but small images spend their time in the interpreter.
    """
    large = sum(map(len, encoded)) > SMALL_BYTES * len(encoded)
    return pool.map if large else map


def all_images(
    stored: Encoded, decode: Decoder, text: str
) -> Iterator[tuple[np.ndarray | BrokenImage, int]]:
    """Every image, or why it cannot be read, and its label; in threads, with progress."""
    starts = range(0, len(stored), CHUNK)
    with ThreadPoolExecutor(thread_name_prefix="decode") as pool:
        for start in tracked(starts, len(stored), text, step=CHUNK):
            indices = range(start, min(start + CHUNK, len(stored)))
            encoded, labels = stored.fetch(indices)
            names = map(stored.name, indices)
            many = mapper(pool, encoded)
            yield from zip(many(decode.attempt, encoded, names), map(int, labels), strict=True)


def broken_images(stored: Encoded, decode: Decoder) -> list[int]:
    """The broken ones among images too many to keep; found once and written down.

    In `~/.cache/kdjax/broken`, under a digest of the files' names, sizes and times.
    """
    root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    path = root / "kdjax" / "broken" / f"{digest(stored.stamp, repr(decode))}.json"
    if path.is_file():
        found: list[int] = json.loads(path.read_text())
        return found
    images = all_images(stored, decode, "data: looking for broken images")
    broken = [i for i, (image, _) in enumerate(images) if isinstance(image, BrokenImage)]
    with drafted(path) as draft:
        draft.write_text(json.dumps(broken))
    return broken


def digest(*parts: str) -> str:
    """A name for these words together."""
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()
