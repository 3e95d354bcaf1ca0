"""Answers on their way to disk, in whatever order a run comes by them.

    view-00003/part-00000.9f2c….npy     a part, written when it is whole
    view-00003/piece-00000.41aa….npy    answers of a part that is not, each with its row in the part

Pieces bound the memory that parts in the making take, and carry them over from a run that ended to
the one that goes on. When their part is whole they are deleted.
"""

from collections import defaultdict
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from threading import Lock

import numpy as np

from kdjax.cache.store import (
    Part,
    Store,
    check_finite,
    find_named,
    load_named,
    place,
    save_named,
)

HELD_BYTES = 256 * 1024**2
"""Answers held in memory; what is more is written in pieces."""


class Filling:
    """The parts of a store in the making. One thread may add to them, and another one save them."""

    def __init__(self, store: Store) -> None:
        self._store, self._lock = store, Lock()
        self._whole: set[Part] = set()
        self._known: dict[Part, np.ndarray] = {}
        """Of parts that are not whole: which rows are held, or in pieces on disk."""
        self._held: dict[Part, list[np.ndarray]] = defaultdict(list)
        """Their answers in memory, a piece a batch."""
        self.held_bytes = 0
        """How much memory they take."""

    def add(self, view: np.ndarray, index: np.ndarray, records: np.ndarray) -> None:
        """Of a batch; what came before comes again without harm.

        ValueError for what float16 cannot hold.
        """
        check_finite(records)
        places = self._store.places(view, index)
        with self._lock:
            for pair in np.unique(places, axis=0):
                part, mine = Part(*pair.tolist()), (places == pair).all(axis=1)
                rows = index[mine] - part.number * self._store.manifest.part
                self._add(part, rows, records[mine])
            if self.held_bytes >= HELD_BYTES:
                self._save()

    def save(self) -> None:
        """Put everything on disk, so that a run that goes on from here need not ask again."""
        with self._lock:
            self._save()

    def _add(self, part: Part, rows: np.ndarray, records: np.ndarray) -> None:
        if part not in self._known and part not in self._whole:
            self._begin(part)
        if part in self._whole:
            return
        piece = np.empty(len(rows), _piece_type(self._store))
        piece["row"], piece["answer"] = rows, records
        self._held[part].append(piece)
        self.held_bytes += piece.nbytes
        self._known[part][rows] = True
        if self._known[part].all():
            self._complete(part)

    def _begin(self, part: Part) -> None:
        if self._store.find(part) is not None:
            self._forget(part)
            return
        known = self._known[part] = np.zeros(len(self._store.examples(part)), bool)
        for piece in _load_pieces(self._store, part):
            known[piece["row"]] = True

    def _complete(self, part: Part) -> None:
        """Write a part. Pieces that are gone are those of one that another process wrote."""
        told = np.concatenate([*_load_pieces(self._store, part), *self._held[part]])
        known = self._known[part] = np.zeros_like(self._known[part])
        known[told["row"]] = True
        if known.all() and self._store.find(part) is None:
            whole = np.empty(len(known), self._store.record)
            whole[told["row"]] = told["answer"]
            finish(self._store, part, whole)
        if self._store.find(part) is not None:
            self._forget(part)

    def _forget(self, part: Part) -> None:
        self._whole.add(part)
        self._known.pop(part, None)
        self._let_go(part)

    def _let_go(self, part: Part) -> list[np.ndarray]:
        """What was held of it."""
        held = self._held.pop(part, [])
        self.held_bytes -= sum(piece.nbytes for piece in held)
        return held

    def _save(self) -> None:
        for part in list(self._held):
            if self._store.find(part) is not None:  # written by another process meanwhile
                self._forget(part)
            else:
                pieces = np.concatenate(self._let_go(part))
                save_named(_place(self._store, part), pieces)


def finish(store: Store, part: Part, records: np.ndarray) -> None:
    """Write a part, and delete its pieces."""
    store.write(part, records)
    for path in find_named(_place(store, part)):
        path.unlink(missing_ok=True)


def _load_pieces(store: Store, part: Part) -> Iterator[np.ndarray]:
    for path in find_named(_place(store, part)):
        with suppress(FileNotFoundError):  # another process deletes those of a part that is whole
            yield load_named(path, _piece_type(store))


def _place(store: Store, part: Part) -> Path:
    return place(store.directory, part, "piece")


def _piece_type(store: Store) -> np.dtype:
    return np.dtype([("row", np.int32), ("answer", store.record)])
