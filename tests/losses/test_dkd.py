"""Decoupled knowledge distillation: the label's share, and how the rest is shared out."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from kdjax.losses import DKD, SoftTarget
from tests.losses.contract import Spec, contract
from tests.losses.formulas import label_loss, log_softmax
from tests.losses.support import law, logits, says, values_of


def formula(loss, student, teacher, labels, own):
    def divergence(p, q):
        return np.sum(p * np.log(p / q))

    values = []
    for z_s, z_t, y in zip(student["logits"], teacher["logits"], labels, strict=True):
        q, p = (np.exp(log_softmax(z / loss.temperature)) for z in (z_s, z_t))
        tckd = divergence(np.array([p[y], 1 - p[y]]), np.array([q[y], 1 - q[y]]))
        p, q = np.delete(p, y), np.delete(q, y)
        nckd = divergence(p / p.sum(), q / q.sum())
        values.append(loss.temperature**2 * (loss.alpha * tckd + loss.beta * nckd))
    return np.array(values)


TestDKD = contract(
    Spec(
        DKD,
        formula,
        cases={
            "default": DKD(),
            "target_alone": DKD(alpha=2.0, beta=0.0, temperature=1.0),
            "others_alone": DKD(alpha=0.0, beta=1.0, temperature=2.0),
        },
        other_values={"alpha": 3.0, "beta": 2.0, "temperature": 2.0},
    )
)


@law
@given(logits, logits, st.sampled_from([1.0, 4.0]))
def test_soft_targets_are_the_decoupled_parts_put_together(z_s, z_t, temperature):
    """Zhao et al., section 3: the teacher's doubt in the label weighs the other classes."""
    target, others = (
        values_of(DKD(alpha=alpha, beta=1 - alpha, temperature=temperature), says(z_s), says(z_t))
        for alpha in (1.0, 0.0)
    )
    doubt = -np.expm1(-label_loss(z_t.astype(np.float64) / temperature, [0, 2, 4]))
    expected = values_of(SoftTarget(temperature=temperature), says(z_s), says(z_t))
    np.testing.assert_allclose(target + doubt * others, expected, rtol=1e-4, atol=1e-3)
