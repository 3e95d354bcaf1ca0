"""Variational information distillation: the teacher's map given the student's."""

import jax
import numpy as np
from hypothesis import given

from kdjax.experiment.objective import Term
from kdjax.losses import VID
from tests.losses.contract import Spec, contract
from tests.losses.formulas import conv, pool_to_common
from tests.losses.support import LABELS, example, law, maps, says, value


def formula(loss, student, teacher, labels, own):
    total = 0.0
    stages = loss.stages or ("stage1", "stage2")
    for i, (ours, theirs) in enumerate(zip(stages, loss.teacher_stages or stages, strict=True)):
        x, f_t = pool_to_common(student[ours], teacher[theirs])
        first, second, third = (own[f"normal{i}/conv{k}/kernel"] for k in range(3))
        mean = conv(np.maximum(conv(np.maximum(conv(x, first), 0), second), 0), third)
        variance = np.log(1 + np.exp(own[f"normal{i}/log_scale"])) + 1e-5
        total = total + np.mean((f_t - mean) ** 2 / variance + np.log(variance), axis=(1, 2, 3)) / 2
    return total


TestVID = contract(
    Spec(
        VID,
        formula,
        cases={
            "default": VID(),
            "other_sizes": VID(stages=("stage1", "odd"), teacher_stages=("double", "smaller")),
        },
        other_values={"stages": ("stage1",), "teacher_stages": ("half", "stage2")},
        training=Term(VID(), 100.0),
        every_day=True,
    )
)


def test_the_variance_starts_at_five():
    params = VID().init(jax.random.key(0), *example())["params"]
    for normal in params.values():
        np.testing.assert_allclose(np.logaddexp(0, normal["log_scale"]) + 1e-5, 5, rtol=1e-6)


@law
@given(maps, maps)
def test_vid_is_at_least_the_entropy(f_s, f_t):
    """It is least where the mean is right, and then half the logarithm of the variance is left."""
    values = value(VID(stages=("flat",)), says(stage=f_s), says(stage=f_t), LABELS)
    least = np.log(np.logaddexp(0, -0.5) + 1e-5) / 2
    assert values.min() >= least - 1e-4
