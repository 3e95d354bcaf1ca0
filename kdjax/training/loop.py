"""The training loop: the same for a teacher, a baseline and a student."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from typing import Any

import jax

from kdjax.data.pipeline import prefetch
from kdjax.data.sources import DataInfo, Source
from kdjax.experiment import Run, Runtime
from kdjax.models import Model
from kdjax.models.summary import parameter_count
from kdjax.training.answers import KeptTeacher
from kdjax.training.beginning import Start, begin, shapes
from kdjax.training.cadence import cadence, validation_steps
from kdjax.training.diary import Diary, NotFinite
from kdjax.training.feed import Feed
from kdjax.training.keeper import Keeper
from kdjax.training.log import MetricLog, Reporter
from kdjax.training.parallel import Devices
from kdjax.training.parts import count_of
from kdjax.training.processes import meet
from kdjax.training.programs import Programs
from kdjax.training.recipe import Recipe, class_counts
from kdjax.training.run_directory import RunDirectory
from kdjax.training.state import Fixed, TrainState
from kdjax.types import Variables


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


Validate = Callable[[Variables], dict[str, Any]]
"""Metrics of the network on the validation split: numbers, or some more by name."""


def fit(
    run: Run,
    directory: RunDirectory,
    info: DataInfo,
    source: Source,
    job: Job,
    *,
    validate: Validate,
    teacher: Teaching | None = None,
    start: Start = lambda fresh: fresh,
    kept: KeptTeacher | None = None,
    warnings: Sequence[str] = (),
    ahead: Sequence[Callable[[Executor], None]] = (),
) -> None:
    """Train until done, from wherever the directory stands; `result.json` has the final numbers.

    `start` turns fresh weights into those the run begins with. `warnings` were said before and are
    logged. With `kept`, the teacher is asked only for answers that are not on disk. `ahead` has
    what else will be wanted compiled behind the first steps. Raises `Diverged` on a
    non-finite loss and `Preempted` when asked to stop; both leave a checkpoint to go on from.
    """
    directory.check(run, info)
    per_class = class_counts(run, info, lambda: source)
    recipe = Recipe.of(run, teacher.model if teacher else None, len(source), per_class)
    size, slices = run.fit.batch_size, run.fit.accumulate
    job.devices.check_batch(f"{run.role}.fit.batch_size", size, slices)
    feed = Feed(run, source, job.devices, job.runtime, kept)
    if job.writes:
        directory.create(run, info)
    asked = kept is None or any(term.loss.reads_classifier for term in recipe.every)
    teaches = teacher.variables if teacher and asked else None
    programs = Programs(recipe, job.devices, feed.together)
    keeper = Keeper(recipe, directory, job.runtime, writes=job.writes)
    with closing(keeper), closing(programs):
        if (known := feed.shapes(teaches)) is not None:
            programs.ahead(keeper.newest(), lambda phase: shapes(phase, info.shape), *known)
        programs.behind(ahead)
        restored = keeper.resumed(info.shape)
        state = restored.state if restored else begin(recipe, info.shape, start)
        with _diary(recipe, directory, job, feed.together, state) as diary:
            for text in () if restored else warnings:
                diary.warn(0, text)
            problems = restored.problems if restored else ()
            diary.begin(int(state.step), problems, _about(recipe, info, job))
            if keeper.changed:
                diary.say(f"{keeper.changed}: it goes on, but not to the same bits")
            session = Session(recipe, job, programs, feed, diary, keeper, validate)
            try:
                session.train(state, feed.fixed(teaches))
            except NotFinite as error:
                raise Diverged(f"{run.role}: {error}; {keeper.left()}. {CALMER}") from error
        keeper.finish()
    meet(f"{run.role} finished")  # from here on, all may read it


CALMER = "Lower fit.schedule.peak, set fit.clip_norm, or lengthen fit.schedule.warmup_epochs."


@dataclass(frozen=True)
class Session:
    """What a run works with while it trains."""

    recipe: Recipe
    job: Job
    programs: Programs
    feed: Feed
    diary: Diary
    keeper: Keeper
    validate: Validate

    def train(self, state: TrainState, fixed: Fixed) -> None:
        """From a state on the host to the end of the run; `Preempted` if asked to stop."""
        first = int(state.step)
        if first == 0 and len(self.recipe.stretches) > 1:
            self.diary.opened(0, count_of(self.recipe.stretch.moving(state.params)))
        moments = cadence(self.recipe, first, self.feed.together)
        state = self.job.devices.replicate(state)
        for due, batch in prefetch(self.feed.batches(moments)):
            programs = self.programs.of(due.steps.start)
            with jax.transfer_guard("disallow"):
                if due.opens:
                    state = programs.open(state, fixed, batch)
                    moving = programs.recipe.stretch.moving(state.params)
                    self.diary.opened(due.steps.start, count_of(moving))
                if due.balance:
                    state = programs.balance(state, fixed, batch)
                state, metrics = programs.advance(due.steps)(state, fixed, batch)
                self.diary.started(due.steps, metrics)
            step = due.steps.stop
            if due.validate:
                self._save(state, step, self._validated(state, step))
                if len(programs.recipe.terms) > 1:
                    self.diary.felt(step, programs.probe(state, fixed, batch))
            if self.job.stop():
                if not due.validate:
                    self._save(state, step, {})
                self.keeper.wait()
                role, steps = self.recipe.run.role, self.recipe.steps
                raise Preempted(f"{role} stopped at step {step} of {steps}")

    def _validated(self, state: TrainState, step: int) -> dict[str, Any]:
        """Validate the weights that will be used: the moving average where there is one."""
        self.diary.catch_up()
        began = time.monotonic()
        metrics = self.validate(state.ema or state.variables())
        weights = "ema" if state.ema else "raw"
        self.diary.validated(step, weights, metrics, time.monotonic() - began)
        return metrics

    def _save(self, state: TrainState, step: int, metrics: Mapping[str, Any]) -> None:
        self.diary.catch_up()  # a state whose losses were not looked at is never saved
        self.feed.save()
        self.keeper.save(state, step, metrics)


@contextmanager
def _diary(
    recipe: Recipe, directory: RunDirectory, job: Job, together: int, state: TrainState
) -> Iterator[Diary]:
    """The diary of a run that begins with this state, closed when it ends."""
    first, runtime, log = int(state.step), job.runtime, None
    if job.writes:
        events = directory.path / "events" if runtime.tensorboard else None
        log = MetricLog(directory.metrics, first, events)
    try:
        yield Diary(
            recipe,
            job.reporter,
            log,
            noted=validation_steps(recipe),
            every=runtime.log_every,
            together=together,
            adapted=tuple(state.params["adapters"]),
        )
    finally:
        job.reporter.stop()
        if log is not None:
            log.close()


def _about(recipe: Recipe, info: DataInfo, job: Job) -> str:
    model, devices = recipe.run.model, job.devices.all
    return (
        f"{type(model).__name__}, {parameter_count(model, info.shape):,} parameters; "
        f"{recipe.steps:,} steps of {recipe.run.fit.batch_size} images on "
        f"{len(devices)} x {devices[0].device_kind}"
    )
