"""Learning rates over time, as values that build Optax schedules."""

from dataclasses import dataclass

import optax

from kdjax.checks import require


@dataclass(frozen=True, kw_only=True)
class LearningRate:
    """A learning rate over time: frozen dataclasses derive from it, ours and yours."""

    def check(self) -> None:
        """Raise ValueError for the first field that cannot work."""

    def check_length(self, epochs: float) -> None:
        """Raise ValueError for the first field that cannot work within so many epochs."""

    def schedule(self, steps_per_epoch: float, steps: int) -> optax.Schedule:
        """Learning rate by step, of a run of so many steps."""
        raise TypeError(f"{type(self).__name__} does not define schedule")


@dataclass(frozen=True, kw_only=True)
class Cosine(LearningRate):
    """Linear warm-up to `peak`, then half a cosine down to `peak * final`."""

    peak: float = 0.1
    """Highest learning rate."""
    warmup_epochs: float = 0.0
    """Length of the linear warm-up from zero."""
    final: float = 0.0
    """What it falls to by the end, as a fraction of the peak."""

    def check(self) -> None:
        """Raise ValueError for the first field that cannot work."""
        _check_rise(self.peak, self.warmup_epochs)
        require("final", self.final, 0 <= self.final <= 1, "in [0, 1]")

    def check_length(self, epochs: float) -> None:
        """Raise ValueError for a warm-up that does not end within so many epochs."""
        _check_warmup(self.warmup_epochs, epochs)

    def schedule(self, steps_per_epoch: float, steps: int) -> optax.Schedule:
        """Learning rate by step."""
        warmup = min(round(self.warmup_epochs * steps_per_epoch), steps - 1)
        cosine = optax.cosine_decay_schedule(self.peak, max(steps - warmup, 1), self.final)
        return _after_warmup(self.peak, warmup, cosine)


@dataclass(frozen=True, kw_only=True)
class Steps(LearningRate):
    """Linear warm-up to `peak`, then times `factor` after each of `epochs`."""

    peak: float = 0.05
    """First learning rate."""
    epochs: tuple[float, ...] = (150, 180, 210)
    """When the rate drops, in epochs completed."""
    factor: float = 0.1
    """What it is multiplied by at each drop."""
    warmup_epochs: float = 0.0
    """Length of the linear warm-up from zero."""

    def check(self) -> None:
        """Raise ValueError for the first field that cannot work."""
        _check_rise(self.peak, self.warmup_epochs)
        times = (self.warmup_epochs, *self.epochs)
        rising = all(a < b for a, b in zip(times, self.epochs, strict=False))
        require("epochs", self.epochs, rising, "rising, after the warm-up")
        require("factor", self.factor, self.factor > 0, "positive")

    def check_length(self, epochs: float) -> None:
        """Raise ValueError for a drop that does not come within so many epochs."""
        _check_warmup(self.warmup_epochs, epochs)
        within = max(self.epochs, default=0.0) < epochs
        require("epochs", self.epochs, within, f"before the end, after {epochs:g} epochs")

    def schedule(self, steps_per_epoch: float, steps: int) -> optax.Schedule:
        """Learning rate by step."""
        del steps
        warmup = round(self.warmup_epochs * steps_per_epoch)
        drops: dict[int, float] = {}
        for epoch in self.epochs:  # several may fall on one step of a short run
            step = round(epoch * steps_per_epoch) - warmup
            drops[step] = drops.get(step, 1.0) * self.factor
        return _after_warmup(self.peak, warmup, optax.piecewise_constant_schedule(self.peak, drops))


@dataclass(frozen=True, kw_only=True)
class Constant(LearningRate):
    """Linear warm-up to `peak`, then no change."""

    peak: float = 0.001
    """The learning rate."""
    warmup_epochs: float = 0.0
    """Length of the linear warm-up from zero."""

    def check(self) -> None:
        """Raise ValueError for the first field that cannot work."""
        _check_rise(self.peak, self.warmup_epochs)

    def check_length(self, epochs: float) -> None:
        """Raise ValueError for a warm-up that does not end within so many epochs."""
        _check_warmup(self.warmup_epochs, epochs)

    def schedule(self, steps_per_epoch: float, steps: int) -> optax.Schedule:
        """Learning rate by step."""
        del steps
        warmup = round(self.warmup_epochs * steps_per_epoch)
        return _after_warmup(self.peak, warmup, optax.constant_schedule(self.peak))


Schedule = Cosine | Steps | Constant | LearningRate
"""Every schedule; the last stands for those that are not ours."""


def _check_rise(peak: float, warmup_epochs: float) -> None:
    require("peak", peak, peak > 0, "positive")
    require("warmup_epochs", warmup_epochs, warmup_epochs >= 0, ">= 0")


def _check_warmup(warmup_epochs: float, epochs: float) -> None:
    fits = warmup_epochs == 0 or warmup_epochs < epochs
    require("warmup_epochs", warmup_epochs, fits, f"less than the {epochs:g} epochs there are")


def _after_warmup(peak: float, warmup: int, rest: optax.Schedule) -> optax.Schedule:
    if warmup <= 0:
        return rest
    return optax.join_schedules([optax.linear_schedule(0.0, peak, warmup), rest], [warmup])
