"""Deep mutual learning: members of an ensemble that teach each other."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given

from kdjax.losses import DML, CrossEntropy, SoftTarget
from kdjax.models import Ensemble
from tests.losses.contract import Spec, contract
from tests.losses.formulas import log_softmax
from tests.losses.support import LABELS, law, logits, says, value_and_slope, values_of
from tests.support import TINY

MEMBERS = ("member0", "member1", "member2")


def formula(loss, student, teacher, labels, own):
    """An example at a time; what teaches is held."""

    def p(name, example):
        return np.exp(log_softmax(student[name][example, 0, 0]))

    values = []
    for i, label in enumerate(labels):
        total = 0.0
        for ours in MEMBERS:
            q = p(ours, i)
            others = [p(f"{theirs} held", i) for theirs in MEMBERS if theirs != ours]
            divergences = [np.sum(r * np.log(r / q)) for r in others]
            mean_or_sum = np.mean if loss.variant == "paper" else np.sum
            total += -np.log(q[label]) + mean_or_sum(divergences)
        values.append(total)
    return np.array(values)


TestDML = contract(
    Spec(
        DML,
        formula,
        cases={"paper": DML(), "code": DML(variant="code")},
        other_values={"variant": "code"},
        reads=MEMBERS,
        student=Ensemble(members=(TINY, TINY.clone(widths=(4, 6)))),
    )
)


def cohort(*answers):
    """Outputs of an ensemble whose members answer so."""
    features = {f"member{i}": jnp.asarray(z)[:, None, None] for i, z in enumerate(answers)}
    return says()._replace(features=features)


@law
@given(logits, logits)
def test_two_members_are_students_of_each_other(a, b):
    """Zhang et al., equations 5 and 6; for two, code and paper are one."""
    task, soft = CrossEntropy(), SoftTarget(temperature=1.0)
    pairs = ((a, b), (b, a))
    expected = sum(
        values_of(task, says(z), says()) + values_of(soft, says(z), says(other))
        for z, other in pairs
    )
    for loss in (DML(), DML(variant="code")):
        values, slope = value_and_slope(loss, cohort(a, b), says())
        np.testing.assert_allclose(values, expected, rtol=1e-5, atol=1e-4)
        for i, (z, other) in enumerate(pairs):
            parts = [value_and_slope(each, says(z), says(other))[1].logits for each in (task, soft)]
            own = slope.features[f"member{i}"][:, 0, 0]
            np.testing.assert_allclose(own, sum(parts), rtol=1e-5, atol=1e-5)


@law
@given(logits)
def test_members_that_agree_have_their_labels_only(z):
    alone = values_of(CrossEntropy(), says(z), says())
    values = values_of(DML(), cohort(z, z, z), says())
    np.testing.assert_allclose(values, 3 * alone, rtol=1e-5, atol=1e-4)


@law
@given(logits, logits, logits)
def test_the_order_of_members_is_no_matter_and_no_value_negative(a, b, c):
    values = values_of(DML(), cohort(a, b, c), says())
    np.testing.assert_allclose(values_of(DML(), cohort(c, a, b), says()), values, rtol=1e-4)
    assert values.min() >= -1e-4


def test_more_than_ten_members_are_all_seen():
    """Their names do not sort by their numbers."""
    z = np.random.default_rng(0).normal(size=(3, 5)).astype(np.float32)
    alone = values_of(CrossEntropy(), says(z), says())
    np.testing.assert_allclose(values_of(DML(), cohort(*[z] * 12), says()), 12 * alone, rtol=1e-5)


@pytest.mark.parametrize("count", [0, 1])
def test_a_network_alone_has_nobody_to_learn_from(count):
    student = cohort(*[np.zeros((3, 5), np.float32)] * count)
    message = f"^DML: the student has {count} members to learn from each other; make the network"
    with pytest.raises(ValueError, match=message):
        DML().init(jax.random.key(0), student, None, LABELS)
