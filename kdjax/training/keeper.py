"""What a run leaves behind: its checkpoints, how long it took, its result."""

import time
from collections.abc import Mapping
from typing import Any

from kdjax.experiment import Runtime
from kdjax.experiment.json import to_dict
from kdjax.models.summary import Shape
from kdjax.training.beginning import resume
from kdjax.training.checkpoint import Checkpoints, Restored
from kdjax.training.checkpoint_writer import CheckpointWriter
from kdjax.training.circumstances import changed, circumstances
from kdjax.training.parallel import fetch
from kdjax.training.processes import from_first
from kdjax.training.recipe import Recipe
from kdjax.training.run_directory import RunDirectory
from kdjax.training.state import TrainState


class Keeper:
    """Of one run; in the processes that do not write it only reads."""

    def __init__(
        self, recipe: Recipe, directory: RunDirectory, runtime: Runtime, *, writes: bool
    ) -> None:
        self._recipe, self._directory = recipe, directory
        keep = {"keep_latest": runtime.keep_latest, "keep_best": runtime.keep_best}
        self._writer = CheckpointWriter(directory.checkpoints, **keep) if writes else None
        self._checkpoints = self._writer or Checkpoints(directory.checkpoints)
        self._started, self._seconds_before = time.monotonic(), 0.0
        self.changed = ""
        """What is otherwise than where a resumed run was stopped, in words."""

    def newest(self) -> int:
        """The step after which a checkpoint was made last, whether it is whole or not; 0: none."""
        return max(self._checkpoints.steps(), default=0)

    def resumed(self, shape: Shape) -> Restored | None:
        """The newest good state, the same in every process; None if the run is a new one."""
        if not from_first(bool(self._checkpoints.steps())):
            return None
        decides = self._writer is not None
        restored = resume(self._checkpoints, self._recipe, shape, decides=decides)
        meta = self._checkpoints.meta(int(restored.state.step))
        self._seconds_before = float(meta["seconds"])
        self.changed = changed(meta["circumstances"], circumstances())
        return restored

    def save(self, state: TrainState, step: int, metrics: Mapping[str, Any]) -> None:
        """Begin to write a checkpoint; training goes on meanwhile."""
        if self._writer is None:
            return
        meta = {
            "epoch": step / self._recipe.steps_per_epoch,
            "seconds": self._seconds(),
            "run": to_dict(self._recipe.run),
            "circumstances": circumstances(),
        }
        self._writer.save(fetch(state), meta, metrics)

    def wait(self) -> None:
        """Until all is on disk."""
        if self._writer is not None:
            self._writer.wait()

    def left(self) -> str:
        """What there is to go on from, in words."""
        self.wait()
        steps = self._checkpoints.steps()
        return f"the checkpoint of step {steps[-1]} is kept" if steps else "nothing was saved yet"

    def finish(self) -> None:
        """Mark the run as finished; the last before the best, since selection flatters."""
        self.wait()
        if self._writer is not None:
            kept = {which: self._kept(which) for which in ("latest", "best")}
            result = {"steps": self._recipe.steps, "seconds": self._seconds(), **kept}
            self._directory.finish(result)

    def close(self) -> None:
        """Finish what is being written, whatever happened."""
        if self._writer is not None:
            self._writer.close()

    def _kept(self, which: str) -> dict[str, Any]:
        meta = self._checkpoints.meta(self._checkpoints.find(which))
        return {key: meta[key] for key in ("step", "epoch", "metrics")}

    def _seconds(self) -> float:
        return round(self._seconds_before + time.monotonic() - self._started, 2)
