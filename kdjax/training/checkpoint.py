"""Checkpoints: the only file that knows Orbax.

A checkpoint holds host arrays, so it does not know how many devices or processes wrote it. One
process writes and any process reads, each on its own: none waits for another here. The items:

- `student`: the network, nothing else; what evaluation and export read;
- `ema`: its moving average, where one is kept;
- `training`: the rest of the state (optimizer, adapters), read by a resumed run only;
- `meta`: step, metrics, config, versions, and a digest of each item, since Orbax stores none and
  restores flipped bits without a word.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers as policies

from kdjax.training.state import TrainState

METRIC = "top1"
"""Validation metric that makes a checkpoint the best."""


class Damaged(ValueError):
    """A checkpoint that cannot be read, or is not what was written."""


class _Manager(ocp.CheckpointManager):
    """Orbax's manager, which would ask JAX about preemption with counters of its own.

    JAX answers for one counter value, which `Preemption` could then miss.
    """

    def reached_preemption(self, step: int) -> bool:
        return False


class Restored(NamedTuple):
    """The newest state that can be read, and why newer ones cannot."""

    state: TrainState
    problems: Sequence[str]


class Checkpoints:
    """The checkpoints of one run directory."""

    def __init__(
        self, directory: Path, *, writes: bool = False, keep_latest: int = 2, keep_best: int = 1
    ) -> None:
        """At most one process `writes`; others may read meanwhile."""

        def score(metrics: Mapping[str, float]) -> float:
            value = metrics.get(METRIC, float("nan"))
            return value if np.isfinite(value) else float("-inf")

        newest = policies.LatestN(keep_latest)
        best = policies.BestN(
            get_metric_fn=score, n=keep_best, keep_checkpoints_without_metrics=False
        )
        here = jax.process_index()
        # Orbax's own pair of options, best_fn with max_to_keep, deletes the newest checkpoint.
        options = ocp.CheckpointManagerOptions(
            best_fn=score,
            preservation_policy=policies.AnyPreservationPolicy([newest, best]),
            create=False,
            cleanup_tmp_directories=writes,  # a reader would delete what is being written
            multiprocessing_options=ocp.options.MultiprocessingOptions(
                primary_host=here, active_processes={here}
            ),
        )
        if writes:
            directory.mkdir(parents=True, exist_ok=True)
        self.directory = directory
        self._writes = writes
        self._manager = _Manager(directory.absolute(), options=options)

    def steps(self) -> list[int]:
        """Complete checkpoints, oldest first."""
        if not self._writes:
            self._manager.reload()  # another process may have added some
        return sorted(self._manager.all_steps())

    def find(self, which: str) -> int:
        """The step that `best`, `latest` or a number means; ValueError if there is none."""
        steps = self.steps()
        if not steps:
            raise ValueError(f"{self.directory.parent} holds no checkpoint; train it first.")
        if which == "latest":
            return steps[-1]
        if which == "best":
            best = self._manager.best_step()
            return steps[-1] if best is None else int(best)  # an imported network has no metrics
        if which.isdigit() and int(which) in steps:
            return int(which)
        have = ", ".join(map(str, steps))
        raise ValueError(f"checkpoint {which!r}: {self.directory.parent} has best, latest, {have}.")

    def save(
        self, state: TrainState, meta: Mapping[str, Any], metrics: Mapping[str, float]
    ) -> None:
        """Start writing a fetched state; `wait` or the next save finishes it."""
        assert self._writes, f"{self.directory} was opened for reading"
        items = _items(state)
        meta = {**meta, "digests": {name: digest(tree) for name, tree in items.items()}}
        args = {name: ocp.args.PyTreeSave(tree) for name, tree in items.items()}
        step = int(state.step)
        everything = ocp.args.Composite(meta=ocp.args.JsonSave(meta), **args)
        with self._named_errors():  # this save's, or the one that was still being written
            saved = self._manager.save(step, args=everything, metrics=dict(metrics))
        assert saved, f"Orbax skips step {step}: it is not newer than {self.steps()}"

    def meta(self, step: int) -> dict[str, Any]:
        """What was noted beside the arrays."""
        meta = self._restore(step, "meta", ocp.args.JsonRestore())
        if "digests" not in meta:
            raise Damaged(f"checkpoint {self.directory}/{step} is damaged: meta changed on disk")
        return meta

    def variables(self, step: int, weights: str = "student") -> dict[str, Any]:
        """The network of a checkpoint: `student`, or `ema`."""
        have = self.meta(step)["digests"]
        if weights not in have:
            raise ValueError(f"{self.directory.parent} keeps no {weights} weights.")
        return self._verified(step, weights, have[weights])

    def restore(self, target: TrainState) -> Restored:
        """The newest readable state, in the shape of `target`.

        Damaged ones are passed over, and deleted by whoever writes, so that training can come by
        those steps again. ValueError if none can be read: never a silent start from the beginning.
        """
        problems: list[str] = []
        for step in reversed(self.steps()):
            try:
                state = self.restore_step(target, step)
            except Damaged as error:
                problems.append(str(error))
                continue
            for damaged in [s for s in self.steps() if self._writes and s > step]:
                self._manager.delete(damaged)
            return Restored(state, problems)
        raise ValueError(
            f"no readable checkpoint: {'; '.join(problems)}. Delete {self.directory.parent} to "
            "train anew."
        )

    def restore_step(self, target: TrainState, step: int) -> TrainState:
        """One state, in the shape of `target`; `Damaged` if it is not what was written."""
        digests = self.meta(step)["digests"]
        items = {name: self._verified(step, name, digests[name]) for name in digests}
        return _state(items, target, f"{self.directory}/{step}")

    def wait(self) -> None:
        """Until everything is on disk; OSError if it cannot get there."""
        with self._named_errors():
            self._manager.wait_until_finished()
            self._manager.check_for_errors()

    def close(self) -> None:
        """Wait, and let go of the directory."""
        self._manager.close()

    @contextmanager
    def _named_errors(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # Orbax raises whatever its storage raises
            steps = self.steps()
            kept = f"that of step {steps[-1]} is the last one" if steps else "there is none yet"
            raise OSError(
                f"{self.directory}: a checkpoint could not be written ({_reason(error)}); {kept}."
            ) from error

    def _verified(self, step: int, name: str, expected: str) -> Any:
        tree = self._restore(step, name, ocp.args.PyTreeRestore())
        tree = jax.tree.map(np.asarray, tree)
        if digest(tree) != expected:
            raise Damaged(f"checkpoint {self.directory}/{step} is damaged: {name} changed on disk")
        return tree

    def _restore(self, step: int, name: str, how: Any) -> Any:
        try:
            return self._manager.restore(step, args=ocp.args.Composite(**{name: how}))[name]
        except Exception as error:  # Orbax raises whatever its storage raises
            raise Damaged(
                f"checkpoint {self.directory}/{step} is unreadable ({name}: {_reason(error)})"
            ) from error


def digest(tree: Any) -> str:
    """SHA-256 of a tree's names, types, shapes and values."""
    sha = hashlib.sha256()
    for name, leaf in sorted(_flatten(tree).items()):
        sha.update(f"{name} {leaf.dtype} {leaf.shape};".encode())
        sha.update(np.ascontiguousarray(leaf).tobytes())
    return sha.hexdigest()


def _reason(error: Exception) -> str:
    """What the system said, without the paths before it and TensorStore's settings after it."""
    line = next(iter(str(error).splitlines()), type(error).__name__)
    return line.split(" [tensorstore_spec", 1)[0].rsplit(": ", 1)[-1]


def _items(state: TrainState) -> dict[str, Any]:
    rest = {
        "step": state.step,
        "params": state.params["adapters"],
        "stats": state.stats["adapters"],
        "memory": state.memory,
        "scales": state.scales,
        "optimizer": state.optimizer,
    }
    items = {"student": dict(state.variables()), "training": _flatten(rest)}
    if state.ema:
        items["ema"] = dict(state.ema)
    return items


def _state(items: dict[str, Any], target: TrainState, source: str) -> TrainState:
    wanted = _items(target)
    if wanted.keys() != items.keys():
        raise ValueError(f"{source} holds {sorted(items)}, but this run needs {sorted(wanted)}.")
    found = {name: _fill(wanted[name], items[name], f"{source}/{name}") for name in wanted}
    rest = {
        "step": target.step,
        "params": target.params["adapters"],
        "stats": target.stats["adapters"],
        "memory": target.memory,
        "scales": target.scales,
        "optimizer": target.optimizer,
    }
    flat = found["training"]
    leaves = [flat[name] for name in _flatten(rest)]
    rest = jax.tree.unflatten(jax.tree.structure(rest), leaves)
    student = found["student"]
    return TrainState(
        step=rest["step"],
        params={"student": student["params"], "adapters": rest["params"]},
        stats={"student": student.get("batch_stats", {}), "adapters": rest["stats"]},
        frozen=student.get("frozen", {}),
        memory=rest["memory"],
        scales=rest["scales"],
        optimizer=rest["optimizer"],
        ema=found.get("ema", {}),
    )


def _fill(target: Any, tree: Any, source: str) -> Any:
    """`tree` in the structure of `target`; ValueError names the first leaf that differs."""
    wanted, found = _flatten(target), _flatten(tree)
    for name in sorted(wanted.keys() | found.keys()):
        if name not in wanted or name not in found:
            raise ValueError(
                f"{source}: {name} is {'missing' if name in wanted else 'unexpected'}."
            )
        a, b = wanted[name], found[name]
        if (a.shape, a.dtype) != (b.shape, b.dtype):
            raise ValueError(
                f"{source}: {name} is {b.dtype}{list(b.shape)}, expected {a.dtype}{list(a.shape)}."
            )
    return jax.tree.unflatten(jax.tree.structure(target), [found[name] for name in wanted])


def _flatten(tree: Any) -> dict[str, Any]:
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="."): leaf for path, leaf in leaves}
