"""Learning rates over time, as values that build Optax schedules."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
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
        raise ValueError(f"{type(self).__name__} has no schedule; define it.")


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


@dataclass(frozen=True, kw_only=True)
class OneCycle(LearningRate):
    """Up to `peak` and down again, each along half a cosine (Smith and Topin, arXiv:1708.07120).

    As PyTorch's `OneCycleLR`: from `peak * start` to `peak` during `rise` of the run, and then down
    to `peak * start * final`.
    """

    peak: float = 0.1
    """Highest learning rate."""
    start: float = 0.04
    """The first rate, as a fraction of the peak."""
    final: float = 1e-4
    """The last rate, as a fraction of the first."""
    rise: float = 0.3
    """When the peak is reached, as a share of the run."""

    def check(self) -> None:
        """Raise ValueError for the first field that cannot work."""
        require("peak", self.peak, self.peak > 0, "positive")
        require("start", self.start, 0 < self.start <= 1, "in (0, 1]")
        require("final", self.final, 0 < self.final <= 1, "in (0, 1]")
        require("rise", self.rise, 0 < self.rise < 1, "in (0, 1)")

    def schedule(self, steps_per_epoch: float, steps: int) -> optax.Schedule:
        """Learning rate by step."""
        del steps_per_epoch
        top = max(1, round(self.rise * steps))
        first = self.peak * self.start
        up = _half_cosine(first, self.peak, top)
        down = _half_cosine(self.peak, first * self.final, max(1, steps - 1 - top))
        return optax.join_schedules([up, down], [top])


@dataclass(frozen=True, kw_only=True)
class WarmRestarts(LearningRate):
    """Half a cosine down from `peak`, again and again (Loshchilov and Hutter, arXiv:1608.03983)."""

    peak: float = 0.1
    """The rate that each period begins with."""
    period: float = 10.0
    """Epochs of the first period."""
    longer: float = 2.0
    """What the length of each later one is multiplied by."""
    final: float = 0.0
    """What the rate falls to by the end of a period, as a fraction of the peak."""
    warmup_epochs: float = 0.0
    """Length of the linear warm-up from zero, before the first period."""

    def check(self) -> None:
        """Raise ValueError for the first field that cannot work."""
        _check_rise(self.peak, self.warmup_epochs)
        require("period", self.period, self.period > 0, "positive")
        require("longer", self.longer, self.longer >= 1, ">= 1")
        require("final", self.final, 0 <= self.final <= 1, "in [0, 1]")

    def check_length(self, epochs: float) -> None:
        """Raise ValueError for a warm-up, or a first period, that does not end by then."""
        _check_warmup(self.warmup_epochs, epochs)
        left = epochs - self.warmup_epochs
        require(
            "period", self.period, self.period <= left, f"at most the {left:g} epochs there are"
        )

    def schedule(self, steps_per_epoch: float, steps: int) -> optax.Schedule:
        """Learning rate by step."""
        warmup = round(self.warmup_epochs * steps_per_epoch)
        length, borders, periods = self.period * steps_per_epoch, [0.0], []
        while borders[-1] < max(steps - warmup, 1):
            first, last = round(borders[-1]), round(borders[-1] + length)
            periods.append(_half_cosine(self.peak, self.peak * self.final, max(1, last - first)))
            borders.append(borders[-1] + length)
            length *= self.longer
        joined = optax.join_schedules(periods, [round(border) for border in borders[1:-1]])
        return _after_warmup(self.peak, warmup, joined)


Schedule = Cosine | Steps | Constant | OneCycle | WarmRestarts | LearningRate
"""Every schedule; the last stands for those that are not ours."""


def _half_cosine(first: float, last: float, steps: int) -> optax.Schedule:
    """From the first rate to the last one in so many steps, and no further."""

    def rate(step: jax.typing.ArrayLike) -> jax.Array:
        done = jnp.clip(jnp.asarray(step) / steps, 0.0, 1.0)
        return last + (first - last) * 0.5 * (1 + jnp.cos(jnp.pi * done))

    return rate


def _check_rise(peak: float, warmup_epochs: float) -> None:
    require("peak", peak, peak > 0, "positive")
    require("warmup_epochs", warmup_epochs, warmup_epochs >= 0, ">= 0")


def _check_warmup(warmup_epochs: float, epochs: float) -> None:
    fits = warmup_epochs <= epochs
    require("warmup_epochs", warmup_epochs, fits, f"at most the {epochs:g} epochs there are")


def _after_warmup(peak: float, warmup: int, rest: optax.Schedule) -> optax.Schedule:
    if warmup <= 0:
        return rest
    return optax.join_schedules([optax.linear_schedule(0.0, peak, warmup), rest], [warmup])
