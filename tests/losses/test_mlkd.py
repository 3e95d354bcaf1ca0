"""Multi-level logit distillation: of examples, of the batch and of the classes."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdjax.losses import MLKD, SoftTarget
from tests.losses.contract import Spec, contract
from tests.losses.formulas import divergence, log_softmax
from tests.losses.support import law, logits, says, value_and_slope, values_of


def formula(loss, student, teacher, labels, own):
    z_s, z_t = student["logits"], teacher["logits"]
    n, classes = z_s.shape
    total = 0.0
    for temperature in loss.temperatures:
        s, t = (np.exp(log_softmax(z / temperature)) for z in (z_s, z_t))
        total += loss.instance * divergence(z_t, z_s, temperature).mean()
        for weight, size, a, b in (
            (loss.batch, n, s, t),
            (loss.classes, classes, s.T, t.T),
        ):
            for i in range(size):
                for j in range(size):
                    gap = sum(b[i] * b[j]) - sum(a[i] * a[j])
                    total += weight * gap**2 / size
    return total


TestMLKD = contract(
    Spec(
        MLKD,
        formula,
        cases={
            "default": MLKD(),
            "paper": MLKD(instance=1.0, batch=1.0, classes=1.0),
            "instance_alone": MLKD(batch=0.0, classes=0.0),
            "batch_alone": MLKD(instance=0.0, classes=0.0, temperatures=(1.0,)),
            "classes_alone": MLKD(instance=0.0, batch=0.0, temperatures=(1.0, 0.5)),
        },
        other_values={
            "temperatures": (4.0, 2.0),
            "instance": 2.0,
            "batch": 3.0,
            "classes": 3.0,
        },
    )
)


def test_the_defaults_are_the_authors_sum_over_two_equal_views():
    """KD of the first view is masked by half and that of the second is not; the rest is of the
    first alone."""
    rng = np.random.default_rng(0)
    z_s, z_t = rng.normal(0, 3, (2, 4, 6))
    once = {
        name: formula(MLKD(**{"instance": 0, "batch": 0, "classes": 0, name: 1}), *given)
        for given in [({"logits": z_s}, {"logits": z_t}, None, {})]
        for name in ("instance", "batch", "classes")
    }
    confidence = np.exp(log_softmax(z_t))
    examples, classes = confidence.max(axis=1), confidence.sum(axis=0)
    of_examples, of_classes = (np.mean(x <= np.percentile(x, 50)) for x in (examples, classes))
    code = once["instance"] * (of_examples + 1)
    code += once["batch"] * of_examples + once["classes"] * of_classes
    ours = values_of(MLKD(), *(says(z.astype(np.float32)) for z in (z_s, z_t)))
    np.testing.assert_allclose(ours, code, rtol=1e-4)


@law
@given(logits)
def test_mlkd_is_zero_where_the_student_is_the_teacher(z):
    values, slope = value_and_slope(MLKD(), says(z), says(z))
    np.testing.assert_allclose(values, 0, atol=1e-4)
    np.testing.assert_allclose(slope.logits, 0, atol=1e-4)


@law
@given(logits, logits)
def test_mlkd_is_not_negative(z_s, z_t):
    assert values_of(MLKD(), says(z_s), says(z_t)) >= -1e-4


@law
@given(logits, logits, st.permutations(range(3)), st.permutations(range(5)))
def test_mlkd_sees_neither_the_order_of_the_batch_nor_that_of_the_classes(z_s, z_t, rows, columns):
    values = values_of(MLKD(), says(z_s), says(z_t))
    turned = values_of(MLKD(), says(z_s[rows][:, columns]), says(z_t[rows][:, columns]))
    np.testing.assert_allclose(turned, values, rtol=1e-4, atol=1e-3)


@law
@given(logits, logits)
def test_each_temperature_gives_its_summand(z_s, z_t):
    both, first, second = (
        values_of(MLKD(temperatures=some), says(z_s), says(z_t))
        for some in ((2.0, 5.0), (2.0,), (5.0,))
    )
    np.testing.assert_allclose(both, first + second, rtol=1e-4, atol=1e-3)


@law
@given(logits, logits)
def test_the_instances_are_soft_targets(z_s, z_t):
    loss = MLKD(temperatures=(3.0,), instance=1.0, batch=0.0, classes=0.0)
    soft = values_of(SoftTarget(temperature=3.0), says(z_s), says(z_t)).mean()
    np.testing.assert_allclose(values_of(loss, says(z_s), says(z_t)), soft, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("temperatures", [(), (4.0, 0.0)])
def test_temperatures_that_cannot_divide_are_refused(temperatures):
    with pytest.raises(ValueError, match=r"^temperatures: .* cannot work; it must be one or more"):
        MLKD(temperatures=temperatures).check()


@pytest.mark.parametrize("field", ["instance", "batch", "classes"])
def test_a_negative_weight_is_refused(field):
    with pytest.raises(ValueError, match=rf"^{field}: -1.0 cannot work; it must be >= 0"):
        MLKD(**{field: -1.0}).check()
