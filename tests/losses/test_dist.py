"""DIST: correlations instead of equality."""

import numpy as np
import pytest
from hypothesis import given

from kdjax.losses import DIST
from tests.losses.contract import Spec, contract
from tests.losses.formulas import log_softmax
from tests.losses.support import example, law, logits, says, values_of


def formula(loss, student, teacher, labels, own):
    t = loss.temperature
    p_s, p_t = (np.exp(log_softmax(side["logits"] / t)) for side in (student, teacher))
    inter = np.mean([1 - np.corrcoef(a, b)[0, 1] for a, b in zip(p_s, p_t, strict=True)])
    intra = np.mean([1 - np.corrcoef(a, b)[0, 1] for a, b in zip(p_s.T, p_t.T, strict=True)])
    return t**2 * (loss.beta * inter + loss.gamma * intra)


TestDIST = contract(
    Spec(
        DIST,
        formula,
        cases={
            "default": DIST(),
            "inter_alone_at_one": DIST(gamma=0.0, temperature=1.0),
            "intra_alone": DIST(beta=0.0),
        },
        other_values={"beta": 1.0, "gamma": 1.0, "temperature": 1.0},
    )
)


@law
@given(logits, logits)
def test_it_lies_between_equal_and_opposite(z_s, z_t):
    value = values_of(DIST(temperature=1.0), says(z_s), says(z_t))
    assert -1e-5 <= value <= 8 + 1e-5


def test_a_student_as_the_teacher_has_nothing_to_learn():
    teacher = example()[1]
    values = values_of(
        DIST(), teacher._replace(logits=teacher.logits[:3]), says(teacher.logits[:3])
    )
    np.testing.assert_allclose(values, 0, atol=1e-5)


@pytest.mark.parametrize(
    ("field", "value"), [("beta", -1.0), ("gamma", -1.0), ("temperature", 0.0)]
)
def test_rules_of_fields(field, value):
    with pytest.raises(ValueError, match=rf"^{field}: {value} cannot work; it must be"):
        DIST(**{field: value}).check()
