"""What a run says of itself: to its log, to whoever watches, and about what looks wrong."""

import math
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from kdjax.training.log import MetricLog, Reporter
from kdjax.training.parallel import IN_FLIGHT, fetch
from kdjax.training.recipe import Recipe
from kdjax.training.speedometer import Speedometer
from kdjax.training.watch import complaints


class NotFinite(Exception):
    """A loss or gradient that was looked at."""

    def __init__(self, step: int, terms: Sequence[str]) -> None:
        """`terms`: those that are to blame."""
        super().__init__(f"{', '.join(terms)} is not finite at step {step}")


class Diary:
    """One run's. Metrics are looked at when the devices are two dispatches further."""

    def __init__(
        self,
        recipe: Recipe,
        reporter: Reporter,
        log: MetricLog | None,
        *,
        noted: frozenset[int],
        every: int,
        together: int,
        adapted: Sequence[str],
    ) -> None:
        """`log`: of the one process that writes. A line is written `every` so many steps, and at
        those `noted`. `together`: steps a dispatch. `adapted`: terms with an adapter."""
        self._recipe, self._reporter, self._log = recipe, reporter, log
        self._noted, self._every, self._adapted = noted, every, adapted
        self._speed = Speedometer(recipe.run.fit.batch_size, together)
        self._under_way: deque[tuple[range, jax.Array]] = deque()
        self._weights: dict[str, float] = {}
        self._warned: set[str] = set()

    def begin(self, first: int, problems: Sequence[object], about: str) -> None:
        """Say what this run is, and where it goes on."""
        for problem in problems:
            self.say(f"{problem}; it is passed over")
        if first:
            self.say(f"goes on from step {first}")
        self.say(about)
        self._reporter.start(self._recipe.run.role, first, self._recipe.steps)

    def opened(self, step: int, parameters: int) -> None:
        """A phase begins with the step that follows this one, and trains so many parameters."""
        self.catch_up()  # lines are in the order of their steps
        recipe = self._recipe.at(step)
        number, count = recipe.number + 1, len(recipe.stretches)
        self.say(f"phase {number} of {count} trains {parameters:,} parameters")
        self._write("phase", step + 1, {"number": number, "parameters": parameters})

    def started(self, steps: range, metrics: jax.Array) -> None:
        """Steps are under way; those that are two dispatches back are looked at.

        Raises NotFinite.
        """
        self._under_way.append((steps, metrics))
        while len(self._under_way) > IN_FLIGHT:
            self._look(*self._under_way.popleft())

    def catch_up(self) -> None:
        """Look at all that is under way: a state whose losses nobody saw is not kept."""
        while self._under_way:
            self._look(*self._under_way.popleft())

    def validated(
        self, step: int, weights: str, metrics: Mapping[str, Any], seconds: float
    ) -> None:
        """A validation of the `raw` or `ema` weights, which interrupted training."""
        self._write("validation", step, {"weights": weights, **metrics})
        self._reporter.validated(step, metrics)
        self._speed.pause(seconds)

    def felt(self, step: int, norms: jax.Array) -> None:
        """How hard each term pulls at the student and at its adapter; a warning is said once."""
        recipe = self._recipe.at(step - 1)
        names = recipe.stretch.names
        student, adapters = (
            dict(zip(names, row.astype(float).tolist(), strict=True)) for row in fetch(norms)
        )
        self._write("gradients", step, {"student": student, "adapters": adapters})
        pulls = {name: student[name] * self._weights[name] for name in names}
        terms = zip(names, recipe.terms, strict=True)
        task = [name for name, term in terms if not term.loss.needs_teacher]
        learning = {name: adapters[name] for name in self._adapted if name in adapters}
        for name, text in complaints(task, pulls, learning).items():
            if name not in self._warned:
                self._warned.add(name)
                self.say(f"warning: {text}")
                self.warn(step, text)

    def warn(self, step: int, text: str) -> None:
        """Log what was said already."""
        self._write("warning", step, {"text": text})

    def say(self, text: str) -> None:
        """A line for whoever watches."""
        self._reporter.say(f"{self._recipe.run.role:<9} {text}")

    def _look(self, steps: range, metrics: jax.Array) -> None:
        self._speed.reach(steps.stop)
        rows = fetch(metrics).astype(float).reshape(len(steps), -1)
        for step, numbers in zip(steps, rows, strict=True):
            self._note(step + 1, numbers)

    def _note(self, step: int, numbers: np.ndarray) -> None:
        recipe = self._recipe.at(step - 1)
        named = dict(zip(recipe.metric_names(), numbers.tolist(), strict=True))
        bad = [name for name, value in named.items() if not math.isfinite(value)]
        if bad:
            raise NotFinite(step, [n for n in bad if n not in ("loss", "gradient_norm")] or bad)
        if step == 1 or step % self._every == 0 or step in self._noted:
            line = {**_line(recipe.stretch.names, named), "images_per_second": self._speed.read()}
            self._weights = line["weights"]
            self._write("train", step, line)
            self._reporter.step(step, {**line, "epoch": step / self._recipe.steps_per_epoch})

    def _write(self, kind: str, step: int, values: Mapping[str, Any]) -> None:
        if self._log is not None:
            epoch = step / self._recipe.steps_per_epoch
            self._log.write(kind, step, {"epoch": epoch, **values})


def _line(terms: Sequence[str], named: Mapping[str, float]) -> dict[str, Any]:
    return {
        **{name: named[name] for name in ("loss", "learning_rate", "gradient_norm")},
        "terms": {name: named[name] for name in terms},
        "weights": {name: named[f"weight/{name}"] for name in terms},
    }
