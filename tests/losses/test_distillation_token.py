"""A vision transformer's second head, taught by the teacher."""

import jax
import pytest

from kdjax.losses import DistillationToken
from kdjax.models import ViT
from tests.losses.contract import Spec, contract
from tests.losses.formulas import divergence, label_loss
from tests.losses.support import example


def formula(loss, student, teacher, labels, own):
    logits = student["distillation_head"].reshape(len(labels), -1)
    if loss.temperature is None:
        return label_loss(logits, teacher["logits"].argmax(axis=-1))
    return divergence(teacher["logits"], logits, loss.temperature)


TestDistillationToken = contract(
    Spec(
        DistillationToken,
        formula,
        cases={"hard": DistillationToken(), "soft": DistillationToken(temperature=3.0)},
        other_values={"temperature": 3.0},
        reads=("distillation_head",),
        teaches=False,
        student=ViT(
            patch=2,
            image_size=(8, 8),
            blocks=(1,),
            heads=2,
            head_size=8,
            distillation_token=True,
        ),
    )
)


def test_a_student_without_the_head_is_told_what_to_do():
    student, teacher, batch = example()
    student = student._replace(features={})
    with pytest.raises(ValueError, match=r"no distillation head; use ViT\(distillation_token=True"):
        DistillationToken().init(jax.random.key(0), student, teacher, batch)


def test_temperatures_are_positive():
    with pytest.raises(ValueError, match=r"^temperature: 0.0 cannot work; it must be positive"):
        DistillationToken(temperature=0.0).check()
