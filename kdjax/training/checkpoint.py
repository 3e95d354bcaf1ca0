"""The checkpoints of a run, for whoever reads them. Knows no writer and nothing of their files.

A checkpoint holds host arrays, so it does not know how many devices or processes wrote it. Any
process reads, at any time, each on its own: nothing is held open, and nothing is ever changed.
"""

import math
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from kdjax.training.checkpoint_folder import CheckpointFolder, Damaged, Foreign, Unreachable
from kdjax.training.items import state_of
from kdjax.training.state import TrainState

METRIC = "top1"
"""Validation metric that makes a checkpoint the best."""


class Restored(NamedTuple):
    """The newest state that is whole, and which others are not."""

    state: TrainState
    problems: Sequence[Damaged]


class Checkpoints:
    """The checkpoints of one run directory.

    Of what is asked for by name, `Damaged` says that it is not what was written, and `Unreachable`
    that it could not be read, this time.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def steps(self) -> list[int]:
        """Complete checkpoints, oldest first; whether they are whole shows when they are read."""
        return [step for step in self._numbered() if self._is_complete(step)]

    def find(self, which: str) -> int:
        """The step that `best`, `latest` or a number means; ValueError if there is none."""
        steps = self.steps()
        if not steps:
            raise ValueError(f"{self.directory.parent} holds no checkpoint; train it first.")
        if which == "latest":
            return steps[-1]
        if which == "best":
            return ranked({step: self.meta(step) for step in steps})[-1]
        if which.isdecimal() and int(which) in steps:
            return int(which)
        have = ", ".join(map(str, steps))
        raise ValueError(f"checkpoint {which!r}: {self.directory.parent} has best, latest, {have}.")

    def meta(self, step: int) -> dict[str, Any]:
        """What was noted beside the arrays."""
        return self._folder(step).meta()

    def variables(self, step: int, weights: str = "student") -> dict[str, Any]:
        """The network of a checkpoint: `student`, or `ema`."""
        if weights not in self.meta(step)["files"]:
            raise ValueError(f"{self.directory.parent} keeps no {weights} weights.")
        return self._folder(step).item(weights)

    def restore(self, target: Callable[[int], TrainState]) -> Restored:
        """The newest state that is whole, in the shape that `target` says it has at its step.

        Newer ones are passed over; so are older ones of which not even the metrics are whole.
        ValueError if none can be used: never a silent start from the beginning.
        """
        state, problems = None, []
        for step in reversed(self._numbered()):
            try:
                if state is None:
                    state = self.restore_step(target(step), step)
                else:
                    self.meta(step)
            except Damaged as error:
                problems.append(error)
        if state is None:
            raise ValueError(
                f"no readable checkpoint: {'; '.join(map(str, problems))}. Delete "
                f"{self.directory.parent} to train anew."
            )
        return Restored(state, problems)

    def restore_step(self, target: TrainState, step: int) -> TrainState:
        """One state, in the shape of `target`."""
        folder = self._folder(step)
        items = {name: folder.item(name) for name in folder.meta()["files"]}
        return state_of(items, target, str(folder.path))

    def _folder(self, step: int) -> CheckpointFolder:
        return CheckpointFolder(self.directory / str(step))

    def _numbered(self) -> list[int]:
        """Steps that have a folder, oldest first."""
        try:
            names = os.listdir(self.directory)
        except FileNotFoundError:
            return []
        except OSError as error:
            raise Unreachable(self.directory, error) from error
        return sorted(int(name) for name in names if name.isdecimal() and str(int(name)) == name)

    def _is_complete(self, step: int) -> bool:
        try:
            self.meta(step)
        except Damaged as error:
            return not isinstance(error, Foreign)
        return True


def score(meta: Mapping[str, Any]) -> float:
    """How good a checkpoint is; what is not finite, or was not measured, is worse than all."""
    value = meta["metrics"].get(METRIC, math.nan)
    return value if math.isfinite(value) else -math.inf


def ranked(metas: Mapping[int, Mapping[str, Any]]) -> list[int]:
    """Steps, the best one last; of equals, the newest."""
    return sorted(metas, key=lambda step: (score(metas[step]), step))
