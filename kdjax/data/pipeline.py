"""Which examples make up which global batch, and getting them ready in time.

Training is one endless stream: epoch after epoch, each a permutation drawn from (seed, epoch). A
batch is a slice of that stream, so it is a function of (seed, step) alone: there is no iterator
state to save, no example is dropped, and a resumed run sees what it would have seen.
"""

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import TypeVar

import numpy as np

from kdjax.data.sources import Source
from kdjax.types import Batch

T = TypeVar("T")


class TrainingStream:
    """The global batches of a run, by step."""

    def __init__(self, source: Source, batch_size: int, seed: int) -> None:
        if batch_size > len(source):
            raise ValueError(
                f"fit.batch_size: {batch_size} is more than the {len(source)} training examples."
            )
        self._source, self._batch_size, self._seed = source, batch_size, seed
        self._order = lru_cache(maxsize=2)(self._permutation)

    def _permutation(self, epoch: int) -> np.ndarray:
        rng = np.random.Generator(np.random.Philox(key=[self._seed, epoch]))
        return rng.permutation(len(self._source))

    def positions(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        """Example index and epoch of each example of batch `step`."""
        place = step * self._batch_size + np.arange(self._batch_size)
        epoch, rank = np.divmod(place, len(self._source))
        index = np.empty(self._batch_size, np.int64)
        for e in np.unique(epoch):
            index[epoch == e] = self._order(int(e))[rank[epoch == e]]
        return index, epoch

    def batch(self, step: int, rows: np.ndarray) -> Batch:
        """The given rows of global batch `step`: those this process feeds to its devices."""
        index, epoch = self.positions(step)
        return _read(self._source, index[rows], epoch[rows], np.ones(len(rows), bool))


def first_batches(
    source: Source, batch_size: int, seed: int, count: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Images and labels of the first batches of a run, as they lie in the data set."""
    size = min(batch_size, len(source))
    stream = TrainingStream(source, size, seed)
    for step in range(count):
        batch = stream.batch(step, np.arange(size))
        yield batch.image, batch.label


def evaluation_batches(source: Source, batch_size: int, rows: np.ndarray) -> Iterator[Batch]:
    """Every example once, in order; the last batch is padded with masked copies of example 0."""
    for start in range(0, len(source), batch_size):
        index = start + rows
        mask = index < len(source)
        yield _read(source, np.where(mask, index, 0), np.zeros(len(rows), np.int64), mask)


def _read(source: Source, index: np.ndarray, epoch: np.ndarray, mask: np.ndarray) -> Batch:
    image, label = source.read(index)
    return Batch(image, label, index.astype(np.int32), epoch.astype(np.int32), mask)


def prefetch(items: Iterable[T], depth: int = 2) -> Iterator[T]:
    """The same items, made `depth` ahead of their use in another thread."""
    iterator = iter(items)
    with ThreadPoolExecutor(1, thread_name_prefix="prefetch") as pool:
        done = object()
        queue = [pool.submit(next, iterator, done) for _ in range(depth)]
        while (item := queue.pop(0).result()) is not done:
            queue.append(pool.submit(next, iterator, done))
            yield item  # type: ignore[misc]
