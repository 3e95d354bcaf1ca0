"""Jobs that tests can afford, and as much of a job as a test looks at."""

import dataclasses
from pathlib import Path

from kdjax.evaluation.load import load
from kdjax.experiment import Experiment
from kdjax.jobs import stages
from kdjax.jobs.opening import opened
from kdjax.types import Variables


def on_two(experiment: Experiment) -> Experiment:
    """Spread over fewer devices than there are: many steps that all must meet take their time."""
    return dataclasses.replace(
        experiment, runtime=dataclasses.replace(experiment.runtime, devices=2)
    )


def learned(experiment: Experiment, workdir: Path) -> Variables:
    """What the student of a job ends with; nothing is tested, exported or reported."""
    with opened(experiment, workdir) as work:
        stages.student(work, stages.teacher(work), "student", ())
    return load(workdir / "student", "latest").variables
