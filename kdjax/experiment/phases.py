"""Phases of a fit: what is trained when, by which losses, at which rate. Knows no array."""

import math
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from kdjax.checks import require, within
from kdjax.experiment.objective import Term
from kdjax.experiment.optim import Optimizer
from kdjax.experiment.schedules import Schedule

BLOCK = re.compile(r"(?:.*/)?stage(\d+)_(?:block(\d+)|down)")
FIRST_LAYER = re.compile(r"(?:.*/)?(?:stem|patch|position|\w*token)")

BOTH = ("student", "adapters")
"""What a run trains: a network, and the parameters of its losses."""


@dataclass(frozen=True, kw_only=True)
class Group:
    """Parameters that are trained at a rate and a weight decay of their own."""

    path: str
    """Where they are: `student/stage1`, `adapters`."""
    rate: float = 1.0
    """What the learning rate is multiplied by."""
    decay: float = 1.0
    """What the optimizer's weight decay is multiplied by."""

    def check(self) -> None:
        """Raise ValueError for the first field that cannot work."""
        require("rate", self.rate, self.rate > 0, "positive; what shall stand still is in freeze")
        require("decay", self.decay, self.decay >= 0, ">= 0")


@dataclass(frozen=True, kw_only=True)
class Phase:
    """A part of a fit, with fresh moments of the optimizer.

    Parts of the student and of the losses' adapters are named by the beginning of their paths, as
    `kdjax show` prints them: `student/stage1` is all whose path goes on there after a word's end,
    `student/stage1_block0_conv1` too, but not `student/stage10`. What is not trained keeps its
    bits, and its batch norm, which then normalises by its running statistics, keeps those too.
    """

    epochs: float | None = None
    """How long it takes; None, of the last phase: all that is left of the fit."""
    losses: tuple[Term, ...] | None = None
    """Its objective; None: that of the run. Ramps count the epochs of the whole fit."""
    train: tuple[str, ...] = BOTH
    """What is trained, by beginnings of paths."""
    freeze: tuple[str, ...] = ()
    """What of that is not."""
    groups: tuple[Group, ...] = ()
    """Parameters with a rate of their own; of several that match, the longest path counts."""
    layer_decay: float = 1.0
    """What the rate is multiplied by with each layer of the student, from its classifier down to
    its stem; a block is a layer."""
    optimizer: Optimizer | None = None
    """How gradients become updates; None: as in the whole fit."""
    schedule: Schedule | None = None
    """Learning rate from the beginning of this phase to its end; None: that of the whole fit."""

    def check(self) -> None:
        """Raise ValueError for the first field that cannot work."""
        if self.epochs is not None:
            require("epochs", self.epochs, self.epochs > 0, "positive")
        require("layer_decay", self.layer_decay, 0 < self.layer_decay <= 1, "in (0, 1]")
        require("train", self.train, len(self.train) > 0, "at least one path")
        for name in ("optimizer", "schedule"):
            if (part := getattr(self, name)) is not None:
                with within(name):
                    part.check()
        for i, group in enumerate(self.groups):
            with within(f"groups.{i}"):
                group.check()
                first = all(group.path != other.path for other in self.groups[:i])
                require("path", group.path, first, "one that no other group has")

    def trains(self, path: str) -> bool:
        """Whether what has this path moves."""
        return any(begins(start, path) for start in self.train) and not any(
            begins(start, path) for start in self.freeze
        )

    def factors(self, path: str) -> Group:
        """What rate and weight decay are multiplied by there, without `layer_decay`."""
        found = [group for group in self.groups if begins(group.path, path)]
        return max(found, key=lambda group: len(group.path), default=Group(path=path))

    def alone(self, rename: Callable[[str], str | None]) -> "Phase | None":
        """What it is to a network without adapters, whose paths are renamed; None: no phase.

        A path that becomes None is not there.
        """

        def ours(paths: Iterable[str]) -> tuple[str, ...]:
            student = (path for path in paths if begins("student", path))
            return tuple(path for path in map(rename, student) if path is not None)

        train, freeze = ours(self.train), ours(self.freeze)
        if not train or "student" in freeze:
            return None
        groups = [(ours([group.path]), group) for group in self.groups]
        kept = tuple(replace(group, path=path) for paths, group in groups for path in paths)
        return replace(self, losses=None, train=train, freeze=freeze, groups=kept)

    def check_paths(self, paths: Collection[str]) -> None:
        """Raise ValueError unless each beginning is one of these paths', and something moves."""
        for field, start in self._beginnings():
            always = start in BOTH  # there may be no adapters
            if not always and not any(begins(start, path) for path in paths):
                there = ", ".join(sorted({"/".join(path.split("/")[:2]) for path in paths}))
                raise ValueError(f"{field}: no path begins with {start!r}; there are {there}.")
        if not any(map(self.trains, paths)):
            raise ValueError(
                f"train: {self.train!r} without freeze {self.freeze!r} leaves nothing to train."
            )
        if self.layer_decay != 1.0:
            layers_of(paths)

    def _beginnings(self) -> Iterator[tuple[str, str]]:
        for name in ("train", "freeze"):
            yield from ((f"{name}.{i}", start) for i, start in enumerate(getattr(self, name)))
        yield from ((f"groups.{i}.path", group.path) for i, group in enumerate(self.groups))


def begins(start: str, path: str) -> bool:
    """Whether a path begins so, up to the end of a word."""
    return path.startswith(start) and not path[len(start) :][:1].isalnum()


def layers_of(paths: Iterable[str]) -> dict[str, int]:
    """How far each parameter of the student is from its head, in layers: the classifier is 0.

    ValueError where the network's names do not say what its blocks are.
    """
    names = {path: path.removeprefix("student/") for path in paths if begins("student", path)}
    blocks = sorted({_block(name) for name in names.values() if BLOCK.match(name)})
    if not blocks:
        raise ValueError(
            "layer_decay: the student has no layers named stage1_block0_…; give rates in groups."
        )
    depth = len(blocks) + 1

    def distance(name: str) -> int:
        if BLOCK.match(name):
            return depth - 1 - blocks.index(_block(name))
        return depth if FIRST_LAYER.match(name) else 0

    return {path: distance(name) for path, name in names.items()}


def _block(name: str) -> tuple[int, int]:
    stage, block = re.match(BLOCK, name).groups()  # type: ignore[union-attr]
    return int(stage), int(block or 0)


class Span(NamedTuple):
    """A phase, and the epochs it begins and ends after."""

    phase: Phase
    begin: float
    end: float


def spans(phases: Sequence[Phase], epochs: float) -> list[Span]:
    """Phases one after the other; one phase of everything where there are none.

    ValueError unless they take as long as the fit.
    """
    phases, placed, begin = phases or (Phase(),), [], 0.0
    for i, phase in enumerate(phases):
        if phase.epochs is None and i + 1 < len(phases):
            raise ValueError(f"phases.{i}.epochs: only the last phase may be without a length.")
        end = epochs if phase.epochs is None else begin + phase.epochs
        end = epochs if math.isclose(end, epochs) else end  # tenths do not add up to the bit
        if not begin < end <= epochs:
            raise ValueError(
                f"phases.{i}: it would be epochs {begin:g} to {end:g}, but the fit has "
                f"{epochs:g}; make it shorter, or set epochs to more."
            )
        placed.append(Span(phase, begin, end))
        begin = end
    if begin < epochs:
        raise ValueError(
            f"phases: they end after {begin:g} of {epochs:g} epochs; leave out the length of the "
            f"last one, or set epochs to {begin:g}."
        )
    return placed
