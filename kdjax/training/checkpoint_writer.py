"""The one process that writes checkpoints. Knows nothing of their files, and no other process."""

import itertools
import math
import os
import sys
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

from kdjax.drafts import discard, drafted, make_folder, move, sweep
from kdjax.training.array_files import reason
from kdjax.training.checkpoint import Checkpoints, Restored, ranked, score
from kdjax.training.checkpoint_folder import Damaged, Foreign, write_checkpoint
from kdjax.training.items import items_of
from kdjax.training.state import TrainState


class CheckpointWriter(Checkpoints):
    """Writes beside the training; the newest and the best are kept.

    A checkpoint gets its name when all of it, and all that leads to it, is on the disk: after a
    crash or a power cut it is there whole, or the one before is the last. What is damaged is moved
    aside and never deleted.
    """

    def __init__(self, directory: Path, *, keep_latest: int = 2, keep_best: int = 1) -> None:
        """Nobody else may be writing: what a crash has left is cleared away."""
        super().__init__(directory)
        make_folder(directory)
        sweep(directory)
        self._keep_latest, self._keep_best = keep_latest, keep_best
        self._thread = ThreadPoolExecutor(1, "checkpoints")
        self._writing: Future[None] | None = None

    def save(self, state: TrainState, meta: Mapping[str, Any], metrics: Mapping[str, Any]) -> None:
        """Start writing a fetched state; `wait`, `close` or the next save ends it."""
        self.wait()
        step = int(state.step)
        self._make_room(step)
        noted = {**meta, "step": step, "metrics": dict(metrics)}
        self._writing = self._thread.submit(self._write, step, items_of(state), noted)

    def wait(self) -> None:
        """Until everything is on disk; OSError, once, if it did not get there."""
        writing, self._writing = self._writing, None
        if writing is None:
            return
        try:
            writing.result()
        except Exception as error:  # whatever the storage raises
            steps = self.steps()
            kept = f"that of step {steps[-1]} is the last one" if steps else "there is none yet"
            raise OSError(
                f"{self.directory}: a checkpoint could not be written ({reason(error)}); {kept}."
            ) from error

    def close(self) -> None:
        """Wait, and let go; an error that is already on its way is not replaced by a later one."""
        earlier = sys.exception()
        try:
            self.wait()
        except OSError as error:
            if earlier is None:
                raise
            earlier.add_note(str(error))
        finally:
            self._thread.shutdown()

    def restore(self, target: Callable[[int], TrainState]) -> Restored:
        """As anyone does; then the damaged ones make room, as training comes by there again."""
        restored = super().restore(target)
        for problem in restored.problems:
            if not isinstance(problem, Foreign):
                self._move_aside(problem.path)
        return restored

    def _make_room(self, step: int) -> None:
        folder = self._folder(step)
        if not os.path.lexists(folder.path):
            return
        try:
            folder.verify()
        except Damaged:
            self._move_aside(folder.path)
        else:
            raise ValueError(f"{folder.path} is a whole checkpoint already.")

    def _move_aside(self, path: Path) -> None:
        names = (path.with_name(f"damaged-{path.name}-{i}") for i in itertools.count(1))
        move(path, next(name for name in names if not os.path.lexists(name)))

    def _write(self, step: int, items: Mapping[str, Any], meta: Mapping[str, Any]) -> None:
        with drafted(self.directory / str(step)) as draft:
            write_checkpoint(draft, items, meta)
        self._delete_old()

    def _delete_old(self) -> None:
        metas = {}
        for step in self._numbered():
            with suppress(Damaged):
                metas[step] = self.meta(step)
        newest = sorted(metas)[-self._keep_latest :]
        best = [step for step in ranked(metas) if math.isfinite(score(metas[step]))]
        for step in metas.keys() - {*newest, *best[-self._keep_best :]}:
            discard(self.directory / str(step))
