"""What the classes count in losses of the label."""

import numpy as np
import pytest

from kdjax.data.sources import Arrays
from kdjax.experiment.objective import Term, for_examples
from kdjax.experiment.phases import Phase
from kdjax.jobs.checking import check_run
from kdjax.losses import CrossEntropy, Focal, SoftTarget
from kdjax.losses.class_weights import balanced
from kdjax.training.recipe import Recipe, class_counts
from tests.losses.support import CLASSES, LABELS, says
from tests.support import tiny_fit
from tests.training import TEACHER, make_run

COUNTS = (500, 20, 1, 300, 79)


def test_balance_one_is_scikit_learns_balanced():
    from sklearn.utils.class_weight import compute_class_weight

    labels = np.repeat(np.arange(5), COUNTS)
    expected = compute_class_weight("balanced", classes=np.arange(5), y=labels)
    np.testing.assert_allclose(balanced(COUNTS, 1.0), expected, rtol=1e-12)


@pytest.mark.parametrize("b", [0.0, 0.9, 0.999, 1.0])
def test_other_balances_are_effective_numbers_at_mean_one(b):
    weights = np.array(balanced(COUNTS, b))
    numbers = np.array([sum(b**i for i in range(n)) for n in COUNTS])
    np.testing.assert_allclose(weights * numbers, (weights * numbers)[0], rtol=1e-9)
    np.testing.assert_allclose(np.repeat(weights, COUNTS).mean(), 1, rtol=1e-12)


@pytest.mark.parametrize("kind", [CrossEntropy, Focal])
def test_a_mixture_counts_by_what_it_has_of_each_class(kind):
    loss = kind(label_smoothing=0.2, class_weights=(1.0, 2.0, 3.0, 4.0, 0.5))
    z = np.random.default_rng(0).normal(size=(3, CLASSES)).astype(np.float32)
    share, other = np.array([0.25, 1.0, 0.0], np.float32), np.array([3, 1, 2])
    one, another = (
        loss.apply({}, says(z), None, LABELS._replace(label=label))
        for label in (LABELS.label, other)
    )
    mixed = loss.apply({}, says(z), None, LABELS._replace(other_label=other, share=share))
    np.testing.assert_allclose(mixed, share * one + (1 - share) * another, rtol=1e-6)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"class_weights": (1.0, -1.0)}, r"^class_weights: \(1.0, -1.0\) cannot work; .* >= 0"),
        ({"class_weights": (0.0, 0.0)}, r"^class_weights: .* one of them more"),
        ({"class_balance": 1.5}, r"^class_balance: 1.5 cannot work; it must be in \[0, 1\]"),
        (
            {"class_balance": 1.0, "class_weights": (1.0, 2.0)},
            r"^class_balance: 1.0 cannot work; it must be None where class_weights are given",
        ),
    ],
)
def test_weights_that_cannot_be_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        CrossEntropy(**fields).check()


def test_a_class_without_examples_has_no_weight():
    terms = (Term(SoftTarget()), Term(CrossEntropy(class_balance=0.99)))
    with pytest.raises(ValueError, match=r"^1.loss.class_balance: class 1 has no training example"):
        for_examples(terms, 3, (2, 0, 1))


def test_weights_that_nobody_counted_are_not_silently_one():
    with pytest.raises(ValueError, match=r"^class_balance: 1.0 cannot work; it must be counted"):
        CrossEntropy(class_balance=1.0).apply({}, says(), None, LABELS)


# --- In a run ----------------------------------------------------------------------------------

BALANCED = Term(CrossEntropy(class_balance=1.0))


def test_weights_of_other_classes_are_refused_before_training(digits):
    run = make_run(losses=(Term(CrossEntropy(class_weights=(1.0, 2.0))),))
    with pytest.raises(ValueError, match=r"^class_weights: 2 numbers, but there are 10 classes"):
        check_run(run, TEACHER, digits)


@pytest.mark.parametrize("in_phase", [False, True])
def test_a_run_counts_the_classes_of_its_training_split(digits, in_phase):
    phases = (Phase(losses=(BALANCED,)),) if in_phase else ()
    losses = (Term(SoftTarget()),) if in_phase else (BALANCED,)
    run = make_run(losses=losses, fit=tiny_fit(phases=phases))
    (term,) = check_run(run, TEACHER, digits).terms
    labels = digits.open("train").labels
    np.testing.assert_allclose(np.mean(np.array(term.loss.class_weights)[labels]), 1, rtol=1e-6)
    each = np.array(term.loss.class_weights) * np.bincount(labels)
    np.testing.assert_allclose(each, each[0], rtol=1e-6)


def test_classes_are_not_counted_for_losses_that_do_not_ask(digits):
    def unread():
        raise AssertionError

    assert class_counts(make_run(), digits.info, unread) == ()


def test_classes_at_the_end_that_are_missing_are_counted_too(digits):
    source = Arrays(np.zeros((3, 8, 8, 1), np.uint8), np.array([0, 2, 2]))
    run = make_run(losses=(BALANCED,))
    assert class_counts(run, digits.info, lambda: source) == (1, 0, 2, *[0] * 7)
    with pytest.raises(ValueError, match=r"^student.losses.0.loss.class_balance: class 1 has no"):
        Recipe.of(run, TEACHER, 3, class_counts(run, digits.info, lambda: source))
