"""The real training loop for a while: input, logging, validation and checkpoints included."""

import dataclasses
import tempfile
import time
from pathlib import Path
from typing import Any

from kdjax.benchmark.measure import a_call
from kdjax.benchmark.parts import Program
from kdjax.benchmark.subject import Subject
from kdjax.data.sources import Source
from kdjax.evaluation.evaluate import Evaluate
from kdjax.experiment import Runtime
from kdjax.training.feed import resident_images
from kdjax.training.log import Reporter
from kdjax.training.loop import Job, Teaching, fit
from kdjax.training.parallel import IN_FLIGHT
from kdjax.training.run_directory import RunDirectory
from kdjax.types import Variables

LEAST, MOST = 24, 4000
"""Steps the loop makes."""


def steps_for(seconds: float, step: float) -> int:
    """Steps that take so long, within reason; an even number."""
    return 2 * round(min(max(seconds / step, LEAST), MOST) / 2)


def whole_loop(
    subject: Subject, runtime: Runtime, validation: Source, steps: int, alone: Program
) -> dict[str, Any]:
    """Seconds of a step in the loop, and what a validation with its checkpoint adds.

    `alone` is the step by itself, timed right before and after: the machine may be another by now.
    """
    per_epoch = subject.recipe.steps_per_epoch
    how = dataclasses.replace(
        subject.run.fit, epochs=steps / per_epoch, eval_every=steps / 2 / per_epoch
    )
    run = dataclasses.replace(subject.run, fit=how)
    teaching = Teaching(subject.teacher, subject.teacher_variables)
    size = runtime.eval_batch_size
    evaluate = Evaluate(run.model, validation, subject.devices, size, teaching)
    passed: list[float] = []

    def validate(variables: Variables) -> dict[str, float]:
        metrics = evaluate(variables)
        return {name: value for name, value in metrics.items() if isinstance(value, float)}

    def note() -> bool:
        passed.append(time.perf_counter())
        return False

    before = a_call(alone, steps // 4)
    with tempfile.TemporaryDirectory() as folder:
        directory = RunDirectory(Path(folder) / run.role)
        job = Job(subject.devices, runtime, Reporter(speaks=False), stop=note)
        fit(run, directory, subject.info, subject.source, job, validate=validate, teacher=teaching)
    after = a_call(alone, steps // 4)
    # The clock stands before each dispatch but the first. The first half compiles; at its end and
    # at the very end a validation follows.
    dispatches = len(passed)
    group = steps / dispatches
    begin, end = dispatches // 2 + IN_FLIGHT, dispatches - 2
    step = (passed[end] - passed[begin]) / (end - begin) / group
    added = passed[-1] - passed[end] - step * group
    every = subject.run.fit.eval_every * per_epoch
    return {
        "steps": steps,
        "seconds_a_step": step,
        "seconds_a_step_alone": (before + after) / 2,
        "seconds_a_validation": max(added, 0.0),
        "seconds_a_step_with_all": step + max(added, 0.0) / every,
        "resident": resident_images(subject.source, runtime.resident, subject.devices) is not None,
    }
