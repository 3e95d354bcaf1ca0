"""Numbers and verdicts in words: pure text, no markup."""

import math
from collections.abc import Mapping
from typing import Any, TypeGuard

from kdjax.experiment import ASSISTANTS
from kdjax.report.job import Evaluation, JobData, Network

SPACE = "\N{NO-BREAK SPACE}"
MINUS = "\N{MINUS SIGN}"
DASH = "\N{EN DASH}"
TIMES = "\N{MULTIPLICATION SIGN}"

NAMES = {
    "teacher": "Teacher",
    **{role: f"Assistant {i}" for i, role in enumerate(ASSISTANTS, start=1)},
    "baseline": "Student alone",
    "student": "Distilled student",
}
"""What a role is called."""


def known(value: float | None) -> TypeGuard[float]:
    """Whether there is a number to show."""
    return value is not None and math.isfinite(value)


def percent(share: float | None, count: float | None = None) -> str:
    """`97.2 %`, with as many digits as `count` examples give sense to.

    What is not all of something never reads as 100 %, and what is something never as 0 %.
    """
    if not known(share):
        return DASH
    digits = 2 if known(count) and count >= 2000 else 1
    while 0 < share < 1 and digits < 6 and float(f"{100 * share:.{digits}f}") in (0, 100):
        digits += 1
    return f"{100 * share:.{digits}f}{SPACE}%"


def interval(evaluation: Evaluation) -> str:
    """`95.4–98.5 %`."""
    bounds = _bounds(evaluation)
    if bounds is None:
        return ""
    low, high = (percent(bound, evaluation.count) for bound in bounds)
    return f"{low.removesuffix(f'{SPACE}%')}{DASH}{high}"


def points(difference: float, count: float | None = None) -> str:
    """A difference of shares in percentage points, without its sign: `2.1 points`."""
    text = percent(abs(difference), count).removesuffix(f"{SPACE}%")
    return f"{text}{SPACE}point{'' if text == '1.0' else 's'}"


def signed_points(difference: float, count: float | None = None) -> str:
    """`+2.1 points`."""
    sign = "+" if difference > 0 else MINUS if difference < 0 else ""
    return sign + points(difference, count)


def number(value: float | None, digits: int = 3) -> str:
    """Significant digits, never an exponent where a reader can do without: `0.0713`."""
    if not known(value):
        return DASH
    sign = MINUS if value < 0 else ""
    if abs(value) < 1000:
        value = float(f"{value:.{digits - 1}e}")  # rounding may add a digit before the point
    if value == 0 or 1e-4 <= abs(value) < 1e6:
        decimals = max(0, digits - 1 - math.floor(math.log10(abs(value)))) if value else 0
        return sign + f"{abs(value):,.{decimals}f}"
    return sign + f"{abs(value):.{digits - 1}e}"


def whole(value: float | None) -> str:
    """`11,689,512`."""
    return f"{value:,.0f}" if known(value) else DASH


def scaled(value: float | None, unit: str = "") -> str:
    """Three digits with an SI prefix: `1.82 G`, `46.8 MB`."""
    if not known(value):
        return DASH
    for factor, prefix in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= 0.9995 * factor:
            return f"{number(value / factor)}{SPACE}{prefix}{unit}"
    return f"{number(value)}{SPACE}{unit}".rstrip()


def milliseconds(value: float | None) -> str:
    """`1.23 ms`."""
    return f"{number(value)}{SPACE}ms" if known(value) else DASH


def duration(seconds: float | None) -> str:
    """`1 h 12 min`, `43 s`."""
    if not known(seconds):
        return DASH
    if round(seconds) < 60:
        return f"{number(seconds, 2)}{SPACE}s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    parts = [(hours, "h"), (minutes, "min"), (0 if hours else rest, "s")]
    return " ".join(f"{value}{SPACE}{unit}" for value, unit in parts if value)


def times(more: float | None, less: float | None) -> str:
    """How often `less` goes into `more`: `12.3×`; empty where that is unknown."""
    if not (known(more) and known(less) and more > 0 and less > 0):
        return ""
    return f"{number(more / less)}{TIMES}"


def heading(name: str) -> str:
    """What is logged under a name, above its numbers: `Balanced accuracy`."""
    words = name.replace("_", " ")
    return words[:1].upper() + words[1:]


def phrase(value: Any) -> str:
    """A config value as one would write it, without what is none: `SGD(momentum=0.9)`."""
    if isinstance(value, Mapping):
        said = {k: v for k, v in value.items() if k != "type" and v not in (None, [])}
        fields = ", ".join(f"{k}={phrase(v)}" for k, v in said.items())
        return f"{value['type']}({fields})" if "type" in value else f"({fields})"
    if isinstance(value, list | tuple):
        return f"({', '.join(map(phrase, value))})"
    return "none" if value is None else str(value)


def objective(terms: Any) -> str:
    """The weighted sum that was minimised: `0.1 × CrossEntropy + 0.9 × SoftTarget`."""
    if not isinstance(terms, list):
        return ""
    return " + ".join(_term(term) for term in terms if isinstance(term, Mapping))


def phases(value: Any) -> str:
    """Phases of a fit by what they do otherwise than the whole: `1: epochs=30, …; 2: …`."""
    if not isinstance(value, list):
        return ""
    texts = []
    for number, phase in enumerate(value, start=1):
        said = {k: v for k, v in phase.items() if v not in (None, [], 1.0)}
        losses = {"losses": objective(said["losses"])} if "losses" in said else {}
        parts = [
            f"{k}={v}" for k, v in {**{k: phrase(v) for k, v in said.items()}, **losses}.items()
        ]
        texts.append(f"{number}: {', '.join(parts)}")
    return "; ".join(texts)


def _of_phase(name: str, value: Any) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    return objective(value) if name == "losses" else phrase(value)


def headline(job: JobData) -> str:
    """The result in one sentence."""
    models = job.summary.models
    teacher, student = models.get("teacher"), models.get("student")
    if teacher and student:
        kept = _kept(teacher, student)
        if kept:
            return kept
    for role in ("student", "baseline", "teacher"):
        if role in models and known(models[role].latest.top1):
            latest = models[role].latest
            name = models[role].type or f"The {NAMES[role].lower()}"
            share = percent(latest.top1, latest.count)
            return f"{name} classifies {share} of {_images(latest)} correctly."
    return _unfinished(job)


def comparison(job: JobData) -> str:
    """Whether the teacher helped, or whether the student would have done as well alone."""
    alone, student = (job.summary.models.get(role) for role in ("baseline", "student"))
    if alone is None or student is None:
        return ""
    ours, theirs = student.latest, alone.latest
    if not (known(ours.top1) and known(theirs.top1)):
        return ""
    # The baseline starts from fresh weights: what is inherited is part of what is compared.
    inherits = job.runs.get("student", {}).get("inherit")
    method = "Distillation with inherited weights" if inherits else "Distillation"
    gain = ours.top1 - theirs.top1
    by = points(gain, ours.count)
    overlap = overlaps(ours, theirs)
    if gain == 0:
        return (
            f"{method} made no difference: the same student trained alone classifies exactly "
            f"as many of {_images(ours)}."
        )
    if gain > 0:
        return f"{method} gained {by} over the same student trained alone{_surely(overlap)}"
    verdict = "did harm" if overlap is False else "did not help"
    return f"{method} {verdict}: the same student trained alone is {by} better{_surely(overlap)}"


def published(job: JobData) -> str:
    """Which epoch the published numbers are of, and where they are printed."""
    theirs = job.summary.published
    if theirs is None:
        return ""
    if theirs.rule == "best":
        which = (
            "the best epoch on the test set. Ours beside it is the last epoch: nothing here was "
            "chosen on the test set, so the comparison favours the published numbers"
        )
    else:
        which = "the last epoch, as ours beside it"
    return f"Published: {theirs.source}; {which}."


def overlaps(one: Evaluation, other: Evaluation) -> bool | None:
    """Whether two intervals share a value; None if one is unknown."""
    a, b = _bounds(one), _bounds(other)
    if a is None or b is None:
        return None
    return a[0] <= b[1] and b[0] <= a[1]


def provenance(evaluation: Evaluation) -> str:
    """Which weights were evaluated, beside their epoch: `step 340, averaged weights`."""
    parts = []
    if known(evaluation.step):
        parts.append(f"step{SPACE}{whole(evaluation.step)}")
    if evaluation.weights == "ema":
        parts.append("averaged weights")
    return ", ".join(parts)


def _kept(teacher: Network, student: Network) -> str:
    theirs, ours = teacher.latest, student.latest
    if not (known(theirs.top1) and known(ours.top1)):
        return ""
    size = ""
    if known(teacher.parameters) and known(student.parameters) and teacher.parameters > 0:
        size = f" with {percent(student.parameters / teacher.parameters)} of its parameters"
    if ours.top1 < theirs.top1:
        share = percent(ours.top1 / theirs.top1)
        return f"The student keeps {share} of the teacher's accuracy{size}."
    word = "exceeds" if overlaps(ours, theirs) is False else "matches"
    figures = f"{percent(ours.top1, ours.count)} against {percent(theirs.top1, theirs.count)}"
    return f"The student {word} its teacher ({figures}){size}."


def _surely(overlap: bool | None) -> str:
    if overlap is None:
        return "."
    if overlap:
        return ", but the two 95 % intervals overlap: it may be chance."
    return "; the two 95 % intervals do not overlap."


def _unfinished(job: JobData) -> str:
    for role in ("student", "baseline", "teacher"):
        history = job.histories.get(role)
        for series in history.validation.values() if history else ():
            top1 = series["top1"].last if "top1" in series else None
            if top1 is not None:
                return (
                    f"{NAMES[role]}: {percent(top1)} of the validation images right after "
                    f"{series['top1'].epoch[-1]:.3g} epochs; not tested yet."
                )
    return "Nothing was measured yet."


def _images(evaluation: Evaluation) -> str:
    count = f"{whole(evaluation.count)} " if known(evaluation.count) else "the "
    return f"{count}{evaluation.split} images"


def _bounds(evaluation: Evaluation) -> tuple[float, float] | None:
    bounds = evaluation.top1_interval
    return bounds if bounds is not None and all(map(math.isfinite, bounds)) else None


def _term(term: Mapping[str, Any]) -> str:
    weight = f"{term['weight']:g} {TIMES} " if term.get("weight", 1.0) != 1.0 else ""
    ramp = f" {TIMES} {phrase(term['schedule'])}" if term.get("schedule") else ""
    return f"{weight}{phrase(term.get('loss'))}{ramp}"
