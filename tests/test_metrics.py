"""Metrics that an experiment chooses: exact means over examples, or refused before training."""

from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax.data.sources import Arrays
from kdjax.evaluation.evaluate import Evaluate
from kdjax.evaluation.metrics import summarise
from kdjax.experiment import BalancedAccuracy, Experiment, Metric, TeacherReference
from kdjax.experiment.metrics import named
from kdjax.experiment.rules import validate
from kdjax.experiment.runs import baseline_run, student_run, teacher_run
from kdjax.jobs.checking import check_metrics, check_run
from kdjax.models import infer
from kdjax.training.loop import Teaching
from kdjax.training.parallel import Devices
from kdjax.training.state import dummy_batch
from kdjax.types import Outputs
from tests.support import TINY
from tests.training import SHAPE, TEACHER, fresh_variables, make_run


@dataclass(frozen=True, kw_only=True)
class Spread(Metric):
    """The standard deviation of the largest logit: no mean, but made of two."""

    power: int = 2

    def __call__(self, student, teacher, batch):
        largest = student.logits.max(axis=-1)
        largest = jnp.where(batch.mask, largest, jnp.nan)  # padding may be anything
        return jnp.stack([largest, largest**self.power], axis=-1)

    def value(self, mean):
        return float(np.sqrt(mean[1] - mean[0] ** 2))


@dataclass(frozen=True, kw_only=True)
class EmbeddingNorm(Metric):
    def __call__(self, student, teacher, batch):
        return jnp.square(student.embedding).sum(axis=-1)


@dataclass(frozen=True, kw_only=True)
class LogitGap(Metric):
    needs_teacher: ClassVar[bool] = True

    def __call__(self, student, teacher, batch):
        return jnp.abs(student.logits - teacher.logits).mean(axis=-1)


CHOSEN = (BalancedAccuracy(), Spread(), EmbeddingNorm(), LogitGap())


# --- What they are -------------------------------------------------------------------------------


def balanced_accuracy(answers, labels, classes):
    """As scikit-learn computes it: from a confusion matrix, without classes that do not occur."""
    confusion = np.zeros((classes, classes))
    np.add.at(confusion, (labels, answers), 1)
    with np.errstate(invalid="ignore"):
        shares = np.diag(confusion) / confusion.sum(axis=1)
    return shares[~np.isnan(shares)].mean()


def of_all(metric, logits, labels):
    """What a metric makes of all examples at once."""
    batch = dummy_batch(SHAPE, len(labels))._replace(label=jnp.asarray(labels))
    outputs = Outputs(jnp.asarray(logits), {}, jnp.zeros((len(labels), 1)))
    return metric.value(np.asarray(metric(outputs, None, batch), np.float64).mean(axis=0))


@pytest.mark.parametrize("frequent", [0.1, 0.9])
def test_balanced_accuracy_is_that_of_scikit_learn(frequent):
    """Of uneven classes, one of which does not occur though it is answered."""
    rng = np.random.default_rng(0)
    labels = np.where(rng.random(200) < frequent, 0, rng.integers(1, 4, 200))
    logits = rng.normal(size=(200, 5)).astype(np.float32)
    logits[np.arange(200), labels] += 1.0
    answers = logits.argmax(axis=-1)
    assert 4 in answers
    expected = balanced_accuracy(answers, labels, 5)
    assert of_all(BalancedAccuracy(), logits, labels) == pytest.approx(expected, abs=1e-7)
    assert abs(expected - (answers == labels).mean()) > 0.005


def other_variables():
    """Of a network that gives each class the answer of another."""
    params = dict(fresh_variables(TINY)["params"])
    params["classifier"] = {k: np.roll(v, 1, axis=-1) for k, v in params["classifier"].items()}
    return {**fresh_variables(TINY), "params": params}


outputs = jax.jit(partial(infer, TINY))


@pytest.fixture(scope="module")
def measured(digits):
    """By number of devices; 131 examples in batches of 32, so the last one is mostly padding."""
    full = digits.open("test")
    source = Arrays(full.images[:131], full.labels[:131])
    variables, teaching = fresh_variables(TINY), Teaching(TINY, other_variables())
    found = {
        count: Evaluate(TINY, source, Devices(count=count), 32, teaching, CHOSEN)(variables)
        for count in (1, 4)
    }
    return source, variables, found


@pytest.mark.parametrize("count", [1, 4])
def test_they_equal_numpy_on_any_devices(measured, count):
    source, variables, found = measured
    images = jnp.asarray(source.images)
    student, other = (outputs(v, images) for v in (variables, other_variables()))
    logits, embedding, teacher = (
        np.asarray(x, np.float64) for x in (student.logits, student.embedding, other.logits)
    )
    answers = logits.argmax(axis=-1)
    assert found[count]["metrics"] == pytest.approx(
        {
            "balanced_accuracy": balanced_accuracy(answers, source.labels, 10),
            "spread": logits.max(axis=-1).std(),
            "embedding_norm": (embedding**2).sum(axis=-1).mean(),
            "logit_gap": np.abs(logits - teacher).mean(),
        },
        rel=1e-4,
    )


def test_counts_are_the_same_to_the_bit_on_any_devices(measured):
    one, four = (found["metrics"]["balanced_accuracy"] for found in measured[2].values())
    assert one == four


def test_what_compares_with_a_teacher_is_left_out_where_there_is_none():
    assert list(named(CHOSEN, taught=True))[2:] == ["embedding_norm", "logit_gap"]
    assert list(named(CHOSEN, taught=False))[2:] == ["embedding_norm"]


def test_a_class_that_occurs_again_is_numbered_and_keeps_its_number():
    twice = LogitGap(), Spread(), Spread(power=4)
    assert list(named(twice, taught=True)) == ["logit_gap", "spread", "spread_2"]
    assert named(twice, taught=False) == {"spread": Spread(), "spread_2": Spread(power=4)}


def test_every_network_of_a_job_has_them():
    experiment = Experiment(name="x", metrics=CHOSEN)
    reference = TeacherReference(run="../teacher", step=1, digest="a")
    runs = [teacher_run(experiment), baseline_run(experiment, TEACHER, SHAPE)]
    runs += [student_run(experiment, TEACHER, SHAPE, reference)]
    assert [run.metrics for run in runs] == [CHOSEN] * 3


# --- What would fail later -----------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Bounded(Metric):
    most: float = 1.0

    def check(self):
        if self.most <= 0:
            raise ValueError(f"most: {self.most} cannot work; it must be positive.")


class Logits(EmbeddingNorm):
    def __call__(self, student, teacher, batch):
        return student.logits


class Mean(EmbeddingNorm):
    def __call__(self, student, teacher, batch):
        return student.logits.mean()


class Classes(EmbeddingNorm):
    def __call__(self, student, teacher, batch):
        return student.logits.mean(axis=0)


class Truths(EmbeddingNorm):
    def __call__(self, student, teacher, batch):
        return student.logits.argmax(axis=-1) == batch.label


class Forgotten(EmbeddingNorm):
    def __call__(self, student, teacher, batch):
        student.logits.mean(axis=-1)


class Broken(EmbeddingNorm):
    def __call__(self, student, teacher, batch):
        return student.nothing


class OfATeacher(EmbeddingNorm):
    def __call__(self, student, teacher, batch):
        return (student.logits - teacher.logits).mean(axis=-1)


class Infinite(Spread):
    def value(self, mean):
        return float("inf")


class Wordy(Spread):
    def value(self, mean):
        return "0.9"


class Dividing(Spread):
    def value(self, mean):
        return 1 / len(mean[2:])


@pytest.mark.parametrize(
    ("metric", "message"),
    [
        (Bounded(), r"^Bounded has no __call__; define it"),
        (Logits(), r"^Logits: its mean has shape \[10\]; define value"),
        (Mean(), r"^Mean returns float32\[\] for a batch of 11 examples; it must be float32, its"),
        (Classes(), r"^Classes returns float32\[10\] for a batch of 11 examples"),
        (Truths(), r"^Truths returns bool\[11\] for a batch of 11 examples; it must be float32"),
        (Forgotten(), r"^Forgotten returns a NoneType for a batch of 11 examples"),
        (Broken(), r"^Broken: AttributeError: .*nothing.* \(test_metrics.py, line \d+\)"),
        (OfATeacher(), r"^OfATeacher: AttributeError: 'NoneType' .* \(test_metrics.py, line"),
        (Infinite(), r"^Infinite: its value is inf where all means are 0.5; it must be a finite"),
        (Wordy(), r"^Wordy: its value is '0.9' where all means are 0.5"),
        (Dividing(), r"^Dividing: ZeroDivisionError: .* \(test_metrics.py, line \d+\)"),
    ],
)
def test_a_metric_is_traced_before_training(metric, message):
    with pytest.raises(ValueError, match=message):
        check_metrics((metric,), TINY, None, SHAPE)


class Precision(Spread):
    def value(self, mean):
        return float(mean[0]) / float(mean[1])


def test_a_value_that_fails_at_a_validation_says_whose_it_is():
    check_metrics((Precision(),), TINY, None, SHAPE)
    bins = {f"bin_{name}": np.zeros(15) for name in ("count", "correct", "confidence")}
    total = {"count": 4, "top1": 2, **bins, "metrics": {"precision": np.zeros(2)}}
    where = r"^Precision: ZeroDivisionError: .* \(test_metrics.py, line \d+\)"
    with pytest.raises(ValueError, match=where):
        summarise(total, {"precision": Precision()})


def test_a_run_is_refused_with_its_metrics(digits):
    check_run(make_run(metrics=CHOSEN), TEACHER, digits)
    with pytest.raises(ValueError, match=r"^Truths returns bool"):
        check_run(make_run(metrics=(*CHOSEN, Truths())), TEACHER, digits)


def test_their_fields_obey_their_own_rules():
    with pytest.raises(ValueError, match=r"^metrics.1.most: -1.0 cannot work"):
        validate(Experiment(name="x", metrics=(Bounded(), Bounded(most=-1.0))))
