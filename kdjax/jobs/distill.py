"""The whole job: teacher, baseline, assistants, student, evaluation, export, report.

Knows the order of the stages and how processes keep step in it; `stages` knows what each does. A
stage that was finished is not done again, so a job that was stopped anywhere goes on when the same
command is given again.
"""

import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

from kdjax.evaluation.load import Loaded
from kdjax.experiment import Experiment
from kdjax.experiment.runs import distilled, roles
from kdjax.jobs import stages
from kdjax.jobs.opening import Work, opened
from kdjax.training.loop import Preempted
from kdjax.training.processes import meet

T = TypeVar("T")
P = ParamSpec("P")


def distill(experiment: Experiment, workdir: Path, command: str) -> dict[str, Any]:
    """Run every stage that is not finished; the content of `summary.json`.

    Raises ValueError for what the user can mend, and `Preempted` when told to stop. Of several
    processes all train and evaluate; the first also exports, reports, and gets the summary.
    """
    with opened(experiment, workdir) as work:
        return run_all(work, command)


def train(experiment: Experiment, workdir: Path) -> dict[str, Any]:
    """The teacher alone; its run directory serves as `teacher.run` of any number of jobs."""
    with opened(experiment, workdir) as work:
        turns = Turns(work)
        networks = {"teacher": turns.all(stages.teacher)}
        models = turns.first(stages.timed, _tests(turns, networks), networks)
        return {"models": models} if models else {}


def run_all(work: Work, command: str) -> dict[str, Any]:
    """Every stage of a job that is open; the summary, in the first process."""
    experiment, turns = work.experiment, Turns(work)
    teacher = turns.all(stages.teacher)
    networks = {"teacher": teacher}
    warnings = turns.all(stages.doubts, teacher)
    if experiment.baseline:
        networks["baseline"] = turns.all(stages.baseline, teacher)
        warnings += turns.all(stages.comparison, teacher, networks["baseline"])
    student = teacher
    for role in distilled(experiment):
        student = networks[role] = turns.all(stages.student, student, role, warnings)
    networks = {role: networks[role] for role in roles(experiment)}
    tests = _tests(turns, networks)
    models = turns.first(stages.timed, tests, networks)
    card = turns.first(stages.exported, student, tests["student"]["best"])
    summary = turns.first(stages.summary, models, card, command)
    turns.first(stages.analysis, student, teacher)
    turns.first(stages.report)
    return summary


class Turns:
    """One stage after the other, the same one in every process.

    Before each stage every process asks whether to stop, and after it they meet: whatever is on
    disk already, and whoever has something to do, all ask equally often, as `Preemption` wants it.
    """

    def __init__(self, work: Work) -> None:
        self._work = work
        self._count = itertools.count()

    def all(self, stage: Callable[Concatenate[Work, P], T], *given: P.args, **named: P.kwargs) -> T:
        """A stage that takes all processes together."""
        with self._turn():
            return stage(self._work, *given, **named)

    def first(
        self,
        stage: Callable[Concatenate[Work, P], dict[str, Any]],
        *given: P.args,
        **named: P.kwargs,
    ) -> dict[str, Any]:
        """A stage of the first process alone; the others wait, and come away empty."""
        with self._turn():
            return stage(self._work, *given, **named) if self._work.job.writes else {}

    @contextmanager
    def _turn(self) -> Iterator[None]:
        if self._work.job.stop():
            raise Preempted("stopped between two stages")
        yield
        meet(f"stage {next(self._count)} finished")


def _tests(turns: Turns, networks: dict[str, Loaded]) -> dict[str, dict[str, Any]]:
    teacher = networks["teacher"]
    return {
        role: turns.all(stages.test, role, network, teacher) for role, network in networks.items()
    }
