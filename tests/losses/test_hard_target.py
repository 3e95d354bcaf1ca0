"""Hard targets: the teacher's decision as the label."""

from kdjax.losses import HardTarget
from tests.losses.contract import Spec, contract
from tests.losses.formulas import label_loss


def formula(loss, student, teacher, labels, own):
    return label_loss(student["logits"], teacher["logits"].argmax(axis=-1))


TestHardTarget = contract(Spec(HardTarget, formula, cases={"default": HardTarget()}, teaches=False))
