"""The training loop: the same for a teacher, a baseline and a student."""

import math
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import version
from typing import Any

import jax
import numpy as np

from kdjax.data.pipeline import TrainingStream, prefetch
from kdjax.data.sources import DataInfo, Source
from kdjax.experiment import ASSISTANTS, Run, Runtime
from kdjax.experiment.json import to_dict
from kdjax.experiment.objective import term_names
from kdjax.models import Model
from kdjax.models.summary import parameter_count
from kdjax.training.answers import KeptTeacher
from kdjax.training.checkpoint import Checkpoints
from kdjax.training.checkpoint_writer import CheckpointWriter
from kdjax.training.log import MetricLog, Reporter
from kdjax.training.pace import Speedometer, groups, resident_images, steps_per_dispatch
from kdjax.training.parallel import IN_FLIGHT, Devices, fetch
from kdjax.training.processes import from_first, meet
from kdjax.training.recipe import Recipe
from kdjax.training.run_directory import RunDirectory
from kdjax.training.state import (
    INITIAL_WEIGHTS,
    Fixed,
    TrainState,
    initial_adapters,
    initial_state,
    initial_variables,
)
from kdjax.training.step import make_balance, make_probe, make_train_step, make_train_steps
from kdjax.training.watch import complaints
from kdjax.types import Batch, Variables


class Diverged(ValueError):
    """A loss or gradient is not finite."""


class Preempted(Exception):
    """Asked to stop; the state is saved."""


@dataclass(frozen=True)
class Teaching:
    """A trained network that teaches: fixed, and never part of the state."""

    model: Model
    variables: Variables


@dataclass(frozen=True)
class Job:
    """What the runs of one job share."""

    devices: Devices
    runtime: Runtime
    reporter: Reporter = field(default_factory=Reporter)
    stop: Callable[[], bool] = lambda: False
    """Polled once a step; True saves and raises `Preempted`."""
    writes: bool = True
    """Whether this process writes logs; exactly one does."""


Validate = Callable[[Variables], dict[str, float]]
"""Metrics of the network on the validation split."""


def fit(
    run: Run,
    directory: RunDirectory,
    info: DataInfo,
    source: Source,
    job: Job,
    *,
    validate: Validate,
    teacher: Teaching | None = None,
    start: Callable[[Variables], Variables] = lambda fresh: fresh,
    kept: KeptTeacher | None = None,
    warnings: Sequence[str] = (),
) -> None:
    """Train until done, from wherever the directory stands; `result.json` has the final numbers.

    `start` turns fresh weights into those the run begins with. `warnings` were said before and are
    logged. With `kept`, the teacher is asked only for answers that are not on disk. Raises
    `Diverged` on a non-finite loss and `Preempted` when asked to stop; both leave a checkpoint to
    go on from.
    """
    directory.check(run, info)
    fitting = Fitting(run, directory, info, source, job, validate, teacher, kept, warnings)
    try:
        fitting.run_to_the_end(start)
    finally:
        fitting.close()


class Fitting:
    """One run in progress."""

    def __init__(
        self,
        run: Run,
        directory: RunDirectory,
        info: DataInfo,
        source: Source,
        job: Job,
        validate: Validate,
        teacher: Teaching | None,
        kept: KeptTeacher | None,
        warnings: Sequence[str],
    ) -> None:
        self.run, self.directory, self.info, self.job = run, directory, info, job
        self.validate, self.teacher, self.warnings = validate, teacher, warnings
        self.kept = kept
        self.recipe = Recipe.of(run, teacher.model if teacher else None, len(source))
        fit = run.fit
        job.devices.check_batch(f"{run.role}.fit.batch_size", fit.batch_size, fit.accumulate)
        self.validations = self._validation_steps()
        data = run.data
        self.stream = TrainingStream(source, fit.batch_size, run.seed, data.views, data.cycle)
        runtime = job.runtime
        self.resident = resident_images(source, runtime.resident, job.devices)
        self.together = runtime.steps_per_dispatch or steps_per_dispatch(self.resident)
        if job.writes:
            directory.create(run, info)
        keep = {"keep_latest": runtime.keep_latest, "keep_best": runtime.keep_best}
        self.writer = CheckpointWriter(directory.checkpoints, **keep) if job.writes else None
        self.checkpoints = self.writer or Checkpoints(directory.checkpoints)
        self.log: MetricLog | None = None
        self.pending: deque[tuple[range, jax.Array]] = deque()
        self.weights: dict[str, float] = {}
        """Of each term, in the last step that was looked at."""
        self.adapted: tuple[str, ...] = ()
        """Terms with an adapter."""
        self.warned: set[str] = set()
        self.speed = Speedometer(fit.batch_size, self.together)
        self.started, self.seconds_before = time.monotonic(), 0.0

    def run_to_the_end(self, start: Callable[[Variables], Variables]) -> None:
        """Resume or begin, train, and mark the run finished."""
        host_state = (
            self._resume() if from_first(bool(self.checkpoints.steps())) else self._begin(start)
        )
        first = int(host_state.step)
        self.adapted = tuple(host_state.params["adapters"])
        if first:
            self.seconds_before = float(self.checkpoints.meta(first)["seconds"])
        if self.job.writes:
            events = self.directory.path / "events" if self.job.runtime.tensorboard else None
            self.log = MetricLog(self.directory.metrics, first, events)
        for text in () if first else self.warnings:
            self._write("warning", 0, {"epoch": 0.0, "text": text})
        self._announce()
        self.job.reporter.start(self.run.role, first, self.recipe.steps)
        self._train(self.job.devices.replicate(host_state), first)
        self._written()
        if self.job.writes:
            self.directory.finish(self._result())
        meet(f"{self.run.role} finished")  # from here on, all may read it

    def close(self) -> None:
        """Finish what is being written, whatever happened."""
        self.job.reporter.stop()
        if self.writer is not None:
            self.writer.close()
        if self.log is not None:
            self.log.close()

    def _announce(self) -> None:
        model, shape = self.run.model, self.info.shape
        devices = self.job.devices.all
        self.job.reporter.say(
            f"{self.run.role:<9} {type(model).__name__}, {parameter_count(model, shape):,} "
            f"parameters; {self.recipe.steps:,} steps of {self.run.fit.batch_size} images on "
            f"{len(devices)} x {devices[0].device_kind}"
        )

    def _initial(self, start: Callable[[Variables], Variables]) -> TrainState:
        run, shape = self.run, self.info.shape
        # Whoever learns from another draws other weights; a baseline draws the student's.
        roles = ("teacher", "student", *ASSISTANTS)
        role = roles.index("student" if run.role == "baseline" else run.role)
        stream = jax.random.fold_in(jax.random.key(run.seed), INITIAL_WEIGHTS)
        key, adapter_key = jax.random.split(jax.random.fold_in(stream, role))
        adapters = initial_adapters(
            self.recipe.terms, run.model, self.recipe.teaching, shape, adapter_key
        )
        variables = start(initial_variables(run.model, shape, key))
        ema = run.fit.ema_decay is not None
        terms, optimizer = len(self.recipe.terms), self.recipe.optimizer()
        return initial_state(variables, adapters, terms, optimizer, ema)

    def _begin(self, start: Callable[[Variables], Variables]) -> TrainState:
        return jax.device_get(self._initial(start))

    def _resume(self) -> TrainState:
        target = jax.eval_shape(partial(self._initial, lambda fresh: fresh))
        if self.job.writes:
            state, problems = self.checkpoints.restore(target)
            for problem in problems:
                self.job.reporter.say(f"{self.run.role:<9} {problem}; it is passed over")
            step = from_first(int(state.step))
        else:
            step = from_first(0)  # a damaged checkpoint is noticed by one process, for all
            state = self.checkpoints.restore_step(target, step)
        self.job.reporter.say(f"{self.run.role:<9} goes on from step {step}")
        return state

    def _fixed(self) -> Fixed:
        devices, fixed = self.job.devices, Fixed()
        if self.resident is not None:
            images, labels = devices.replicate((self.resident.images, self.resident.labels))
            fixed = Fixed(images=images, labels=labels)
        if self.kept is not None and jax.process_count() == 1:
            self.kept.start(devices, fixed)
        asked = self.kept is None or any(t.loss.reads_classifier for t in self.recipe.terms)
        if self.teacher is not None and asked:
            fixed = fixed._replace(teacher=devices.replicate(self.teacher.variables))
        return fixed

    def _batches(self, first: int) -> Iterator[tuple[range, Batch]]:
        """The steps that are started together, and their batches on the devices."""
        fit, devices = self.run.fit, self.job.devices
        rows = devices.rows(fit.batch_size, fit.accumulate)
        for steps in groups(first, self.recipe.steps, self.together, self._interrupts):
            batches = [self._batch(step, rows) for step in steps]
            whole = len(steps) > 1
            yield steps, devices.split_all(batches) if whole else devices.split(batches[0])

    def _batch(self, step: int, rows: np.ndarray) -> Batch:
        batch = (self.stream.batch if self.resident is None else self.stream.names)(step, rows)
        return batch if self.kept is None else self.kept.completed(batch)

    def _interrupts(self, step: int) -> bool:
        every = self.run.fit.balance
        return step + 1 in self.validations or bool(every and step % every == 0)

    def _train(self, state: TrainState, first: int) -> None:
        devices, fixed = self.job.devices, self._fixed()
        train_step = devices.spread(make_train_step(self.recipe), donate=True)
        train_steps = devices.spread(make_train_steps(self.recipe), donate=True)
        probe = devices.spread(make_probe(self.recipe), donate=False)
        balance = devices.spread(make_balance(self.recipe), donate=True)
        every = self.run.fit.balance
        for steps, batch in prefetch(self._batches(first)):
            with jax.transfer_guard("disallow"):
                if every and steps.start % every == 0:
                    state = balance(state, fixed, batch)
                advance = train_steps if len(steps) > 1 else train_step
                state, metrics = advance(state, fixed, batch)
                self.pending.append((steps, metrics))
                while len(self.pending) > IN_FLIGHT:
                    self._record(*self.pending.popleft())
            step = steps.stop
            saved = step in self.validations
            if saved:
                self._save(state, step, self._validated(state, step))
                if len(self.recipe.terms) > 1:
                    self._felt(step, probe(state, fixed, batch))
            if self.job.stop():
                if not saved:
                    self._save(state, step, {})
                self._written()
                raise Preempted(f"{self.run.role} stopped at step {step} of {self.recipe.steps}")

    def _validation_steps(self) -> set[int]:
        every = self.run.fit.eval_every * self.recipe.steps_per_epoch
        count = math.floor(self.recipe.steps / every)
        return {max(1, round(i * every)) for i in range(1, count + 1)} | {self.recipe.steps}

    def _drain(self) -> None:
        while self.pending:
            self._record(*self.pending.popleft())

    def _record(self, steps: range, metrics: jax.Array) -> None:
        """Look at the metrics of steps that the devices have finished, or are about to."""
        self.speed.reach(steps.stop)
        rows = fetch(metrics).astype(float).reshape(len(steps), -1)
        for step, numbers in zip(steps, rows, strict=True):
            self._note(step + 1, numbers)

    def _note(self, step: int, numbers: np.ndarray) -> None:
        named = dict(zip(self.recipe.metric_names(), numbers.tolist(), strict=True))
        if not np.isfinite(numbers).all():
            self._diverged(step, named)
        noted = step == 1 or step % self.job.runtime.log_every == 0 or step in self.validations
        if noted:
            self._write("train", step, self._train_line(step, named))

    def _train_line(self, step: int, named: Mapping[str, float]) -> dict[str, Any]:
        weights = {
            k.removeprefix("weight/"): v for k, v in named.items() if k.startswith("weight/")
        }
        self.weights = weights
        line = {
            "epoch": step / self.recipe.steps_per_epoch,
            **{k: named[k] for k in ("loss", "learning_rate", "gradient_norm")},
            "terms": {name: named[name] for name in weights},
            "weights": weights,
            "images_per_second": self.speed.read(),
        }
        self.job.reporter.step(step, line)
        return line

    def _write(self, kind: str, step: int, line: Mapping[str, Any]) -> None:
        if self.log is not None:
            self.log.write(kind, step, line)

    def _felt(self, step: int, norms: jax.Array) -> None:
        """How hard each term pulls at the student and at its adapter; a warning is said once."""
        names = term_names(self.recipe.terms)
        by_term = [
            dict(zip(names, row.astype(float).tolist(), strict=True)) for row in fetch(norms)
        ]
        epoch = step / self.recipe.steps_per_epoch
        line = {"epoch": epoch, "student": by_term[0], "adapters": by_term[1]}
        self._write("gradients", step, line)
        pulls = {name: by_term[0][name] * self.weights[name] for name in names}
        task = [
            name
            for name, term in zip(names, self.recipe.terms, strict=True)
            if not term.loss.needs_teacher
        ]
        adapters = {name: by_term[1][name] for name in self.adapted}
        for name, text in complaints(task, pulls, adapters).items():
            if name not in self.warned:
                self.warned.add(name)
                self.job.reporter.say(f"{self.run.role:<9} warning: {text}")
                self._write("warning", step, {"epoch": epoch, "text": text})

    def _diverged(self, step: int, named: Mapping[str, float]) -> None:
        bad = [k for k, v in named.items() if not math.isfinite(v)]
        terms = [k for k in bad if k not in ("loss", "gradient_norm")] or bad
        self._written()
        steps = self.checkpoints.steps()
        kept = f"the checkpoint of step {steps[-1]} is kept" if steps else "nothing was saved yet"
        raise Diverged(
            f"{self.run.role}: {', '.join(terms)} is not finite at step {step}; {kept}. Lower "
            "fit.schedule.peak, set fit.clip_norm, or lengthen fit.schedule.warmup_epochs."
        )

    def _validated(self, state: TrainState, step: int) -> dict[str, float]:
        """Validate the weights that will be used: the moving average where there is one."""
        self._drain()
        began = time.monotonic()
        weights = "ema" if state.ema else "raw"
        metrics = self.validate(state.ema or state.variables())
        line = {"epoch": step / self.recipe.steps_per_epoch, "weights": weights, **metrics}
        self._write("validation", step, line)
        self.job.reporter.validated(step, metrics)
        self.speed.pause(time.monotonic() - began)
        return metrics

    def _save(self, state: TrainState, step: int, metrics: dict[str, float]) -> None:
        self._drain()  # a state whose losses were not looked at is never saved
        if self.writer is None:
            return
        meta = {
            "epoch": step / self.recipe.steps_per_epoch,
            "seconds": self._seconds(),
            "run": to_dict(self.run),
            "versions": {name: version(name) for name in ("jax", "flax", "optax", "kdjax")},
        }
        self.writer.save(fetch(state), meta, metrics)

    def _written(self) -> None:
        """Once what this process saved is on disk."""
        if self.writer is not None:
            self.writer.wait()

    def _result(self) -> dict[str, Any]:
        """The last checkpoint before the best one: selection flatters."""
        kept = {}
        for which in ("latest", "best"):
            meta = self.checkpoints.meta(self.checkpoints.find(which))
            kept[which] = {key: meta[key] for key in ("step", "epoch", "metrics")}
        return {"steps": self.recipe.steps, "seconds": self._seconds(), **kept}

    def _seconds(self) -> float:
        return round(self.seconds_before + time.monotonic() - self.started, 2)
