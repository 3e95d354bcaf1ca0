"""The rules of a fit, its phases and its losses. Knows no experiment."""

from collections.abc import Iterator

from kdjax.checks import require, within
from kdjax.data.augment import mixing_among
from kdjax.experiment.fields import Data, Fit, Student, Teacher
from kdjax.experiment.objective import Term
from kdjax.experiment.phases import Phase, spans
from kdjax.losses import Ramp


def check_fit(where: str, fit: Fit) -> None:
    """Raise ValueError for the first field of a fit that cannot work."""
    require(f"{where}.epochs", fit.epochs, fit.epochs > 0, "positive")
    require(f"{where}.batch_size", fit.batch_size, fit.batch_size >= 1, "at least 1")
    divides = fit.accumulate >= 1 and fit.batch_size % fit.accumulate == 0
    require(f"{where}.accumulate", fit.accumulate, divides, f"a divisor of {fit.batch_size}")
    require(f"{where}.eval_every", fit.eval_every, fit.eval_every > 0, "positive")
    with within(f"{where}.schedule"):
        fit.schedule.check()
    with within(f"{where}.optimizer"):
        fit.optimizer.check()
    if fit.clip_norm is not None:
        require(f"{where}.clip_norm", fit.clip_norm, fit.clip_norm > 0, "positive, or None")
    longest = max(fit.epochs, Fit.eval_every)
    remedy = f"at most {longest:g}, or nothing is validated but the end"
    require(f"{where}.eval_every", fit.eval_every, fit.eval_every <= longest, remedy)
    _check_phases(where, fit)
    if fit.ema_teacher and fit.ema_decay is None:
        raise ValueError(
            f"{where}.ema_teacher: there is no moving average; give {where}.ema_decay, such as "
            "0.999."
        )
    if fit.balance is not None:
        require(f"{where}.balance", fit.balance, fit.balance >= 1, "at least 1, or None")
    if fit.ema_decay is not None:
        require(f"{where}.ema_decay", fit.ema_decay, 0 < fit.ema_decay < 1, "in (0, 1), or None")


def _check_phases(where: str, fit: Fit) -> None:
    """The parts of a fit, and that their rates do what they say within their lengths."""
    with within(where):
        placed = spans(fit.phases, fit.epochs)
    if any(span.phase.schedule is None for span in placed):
        with within(f"{where}.schedule"):
            fit.schedule.check_length(fit.epochs)
    for i, (phase, begin, end) in enumerate(placed):
        with within(f"{where}.phases.{i}"):
            phase.check()
        if phase.schedule is not None:
            with within(f"{where}.phases.{i}.schedule"):
                phase.schedule.check_length(end - begin)
        optimizer = phase.optimizer or fit.optimizer
        if fit.clip_norm is not None and optimizer.splits_task:
            raise ValueError(
                f"{where}.clip_norm: {type(optimizer).__name__} takes the gradient apart, which "
                "clipping would upset; leave it None, or choose another optimizer."
            )


def check_losses(where: str, losses: tuple[Term, ...], data: Data, *, has_teacher: bool) -> None:
    """Raise ValueError for the first term that cannot work on these data, with or without one."""
    require(where, losses, len(losses) > 0, "at least one term")
    weights = [term.weight * _most(term.schedule) for term in losses]
    if max(weights) == 0:
        raise ValueError(f"{where}: all terms have weight 0 throughout; give one of them a weight.")
    mixing = mixing_among(data.augment)
    for i, term in enumerate(losses):
        require(f"{where}.{i}.weight", term.weight, term.weight >= 0, ">= 0")
        if term.schedule is not None:
            with within(f"{where}.{i}.schedule"):
                term.schedule.check()
        with within(f"{where}.{i}.loss"):
            term.loss.check()
        if term.loss.needs_one_label and mixing:
            raise ValueError(
                f"{where}.{i}: {type(term.loss).__name__} needs one label an image, and {mixing} "
                "in data.augment gives two; leave out one of them."
            )
        if term.loss.needs_teacher and not has_teacher:
            raise ValueError(
                f"{where}.{i}: {type(term.loss).__name__} needs a teacher, and a teacher is "
                "trained without one; use it in student.losses."
            )


def _most(ramp: Ramp | None) -> float:
    """The largest factor that a weight is multiplied by."""
    return 1.0 if ramp is None else max(ramp.start, ramp.stop)


def check_projector(where: str, losses: tuple[Term, ...], *, reuses: bool) -> None:
    """Raise ValueError for a loss of a projector, where the student has none."""
    for i, term in enumerate(losses):
        if term.loss.needs_projector and not reuses:
            raise ValueError(
                f"{where}.{i}: {type(term.loss).__name__} teaches a student that answers with its "
                "teacher's classifier; set student.reuse_classifier=True, or choose another loss."
            )


def check_prepared(where: str, student: Student) -> None:
    """A loss that reads what another one trains comes after it."""
    before: set[type] = set()
    for phase in student.fit.phases or (Phase(),):
        kinds = {type(term.loss) for term in phase.losses or student.losses}
        for kind in kinds:
            if kind.prepared_by is not None and kind.prepared_by not in before:
                raise ValueError(
                    f"{where}.fit.phases: {kind.__name__} reads what {kind.prepared_by.__name__} "
                    "trains in a phase before, and there is none; configs/cifar100.py has both."
                )
        before |= kinds


def objectives(where: str, learner: Teacher | Student) -> Iterator[tuple[str, tuple[Term, ...]]]:
    """The losses of a network, and those of its phases, with the names of their fields."""
    yield f"{where}.losses", learner.losses
    for i, phase in enumerate(learner.fit.phases):
        if phase.losses is not None:
            yield f"{where}.fit.phases.{i}.losses", phase.losses
