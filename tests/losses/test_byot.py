"""Self-distillation: a network's shallow stages learn from its deepest answer."""

import jax
import numpy as np
import pytest

from kdjax.experiment.objective import Term
from kdjax.losses import BYOT
from tests.losses.contract import Spec, contract
from tests.losses.formulas import batch_norm, conv, divergence, label_loss
from tests.losses.support import example


def formula(loss, student, teacher, labels, own):
    total = 0.0
    for stage in loss.stages or ("stage1",):
        kernel, bias = own[f"conv_{stage}/kernel"], own[f"conv_{stage}/bias"]
        x = conv(student[stage], kernel, bias, 1, (1, 1))
        x = batch_norm(x, own[f"bn_{stage}/scale"], own[f"bn_{stage}/bias"])
        f = np.maximum(x, 0).mean(axis=(1, 2))
        z = f @ own[f"classifier_{stage}/kernel"] + own[f"classifier_{stage}/bias"]
        soft = divergence(student["logits"], z, loss.temperature) / loss.temperature**2
        hint = np.sum((f - student["embedding"]) ** 2, axis=-1)
        total += (1 - loss.alpha) * label_loss(z, labels) + loss.alpha * soft + loss.beta * hint
    return total


TestBYOT = contract(
    Spec(
        BYOT,
        formula,
        talks=True,
        cases={
            "default": BYOT(),
            "labels_alone": BYOT(alpha=0.0, beta=0.0),
            "itself_alone": BYOT(alpha=1.0, beta=1.0, temperature=1.0),
        },
        other_values={
            "stages": ("stage1", "stage2"),
            "alpha": 0.9,
            "beta": 1.0,
            "temperature": 1.0,
            "sync_batch_norm": False,
        },
        reads=("stage1",),
        flat=("conv_stage1/bias",),
        training=Term(BYOT(beta=1.0), 5.0),
    )
)


def test_stages_that_are_not_there_are_named():
    with pytest.raises(ValueError, match=r"^BYOT: the student has no stage 'stage9'; it has"):
        BYOT(stages=("stage9",)).init(jax.random.key(0), *example())


def test_one_stage_has_no_shallow_ones():
    student, teacher, batch = example()
    student = student._replace(features={"stage1": student.features["stage1"]})
    with pytest.raises(ValueError, match=r"^BYOT: the student has one stage only; name those"):
        BYOT().init(jax.random.key(0), student, teacher, batch)


@pytest.mark.parametrize(
    ("field", "value", "remedy"),
    [
        ("alpha", 1.5, r"in \[0, 1\]"),
        ("beta", -1.0, "at least 0"),
        ("temperature", 0.0, "positive"),
    ],
)
def test_fields_that_cannot_work(field, value, remedy):
    with pytest.raises(ValueError, match=f"^{field}: {value} cannot work; it must be {remedy}"):
        BYOT(**{field: value}).check()
