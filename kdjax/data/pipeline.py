"""Which examples make up which global batch, and getting them ready in time.

Training is one endless stream: epoch after epoch, each a permutation, or draws, by (seed, epoch). A
batch is a slice of that stream, so it is a function of (seed, step) alone: there is no iterator
state to save, no example is dropped, and a resumed run sees what it would have seen.
"""

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import TypeVar

import jax
import numpy as np

from kdjax.data.drawing import Sampling, order_of
from kdjax.data.sources import Source
from kdjax.types import Batch

T = TypeVar("T")

VIEW_NUMBERS = 2**31
"""So many there are; after that they come again."""


class TrainingStream:
    """The global batches of a run, by step."""

    def __init__(
        self,
        source: Source,
        batch_size: int,
        seed: int,
        views: int = 1,
        cycle: int | None = None,
        sampling: Sampling = "instance",
    ) -> None:
        """`views` of each example follow each other; with `cycle` it has only so many in all."""
        if batch_size > len(source):
            raise ValueError(
                f"fit.batch_size: {batch_size} is more than the {len(source)} training examples."
            )
        self._source, self._batch_size = source, batch_size
        self._views, self._cycle = views, cycle or VIEW_NUMBERS
        self._drawn = sampling != "instance"
        self._order = lru_cache(maxsize=2)(order_of(source, seed, sampling))

    def batch(self, step: int, rows: np.ndarray) -> Batch:
        """The given rows of global batch `step`: those this process feeds to its devices."""
        return _read(self._source, self.names(step, rows))

    def names(self, step: int, rows: np.ndarray) -> Batch:
        """The same without images and labels: which examples, and which view of each."""
        place, view = np.divmod(step * self._batch_size + rows, self._views)
        epoch, rank = np.divmod(place, len(self._source))
        index = np.empty(len(rows), np.int64)
        for e in np.unique(epoch):
            index[epoch == e] = self._order(int(e))[rank[epoch == e]]
        # What is drawn twice in an epoch is another view each time.
        view = (place if self._drawn else epoch) * self._views + view
        view %= self._cycle
        return _named(index, epoch, view, np.ones(len(rows), bool))


def first_batches(
    source: Source, batch_size: int, seed: int, count: int, sampling: Sampling = "instance"
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Images and labels of the first batches of a run, as they lie in the data set."""
    size = min(batch_size, len(source))
    stream = TrainingStream(source, size, seed, sampling=sampling)
    for step in range(count):
        batch = stream.batch(step, np.arange(size))
        yield batch.image, batch.label


def evaluation_batches(source: Source, batch_size: int, rows: np.ndarray) -> Iterator[Batch]:
    """Every example once, in order; the last batch is padded with masked copies of example 0."""
    for start in range(0, len(source), batch_size):
        index = start + rows
        mask = index < len(source)
        zeros = np.zeros(len(rows), np.int64)
        yield _read(source, _named(np.where(mask, index, 0), zeros, zeros, mask))


def batch_shapes(source: Source, rows: int) -> Batch:
    """What a batch of so many rows is, as shapes."""
    zero = np.zeros(1, np.int64)
    one = _read(source, _named(zero, zero, zero, np.ones(1, bool)))
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct((rows, *x.shape[1:]), x.dtype), one)


def _read(source: Source, batch: Batch) -> Batch:
    image, label = source.read(batch.index)
    return batch._replace(image=image, label=label)


def _named(index: np.ndarray, epoch: np.ndarray, view: np.ndarray, mask: np.ndarray) -> Batch:
    index, epoch, view = (x.astype(np.int32) for x in (index, epoch, view))
    return Batch(None, None, index, epoch, view, mask)


def prefetch(items: Iterable[T], depth: int = 2) -> Iterator[T]:
    """The same items, made `depth` ahead of their use in another thread."""
    iterator = iter(items)
    with ThreadPoolExecutor(1, thread_name_prefix="prefetch") as pool:
        done = object()
        queue = [pool.submit(next, iterator, done) for _ in range(depth)]
        while (item := queue.pop(0).result()) is not done:
            queue.append(pool.submit(next, iterator, done))
            yield item  # type: ignore[misc]
