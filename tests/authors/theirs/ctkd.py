"""CTKD: a temperature that works against the student."""

from torch import Tensor, sigmoid

from tests.authors.side import Own, Side, Theirs
from tests.checkouts import from_checkout

REPOSITORY = "zhengli97/CTKD"

temperature = from_checkout(REPOSITORY, "models.temp_global")
zoo = from_checkout(REPOSITORY, "distiller_zoo.KD")


def curriculum(s: Side, t: Side, labels: Tensor, own: Own) -> Tensor:
    # The strength that the slope is reversed with, in the middle of its ramp.
    x = own(temperature.Global_T())(t["logits"], s["logits"], -0.5)
    return zoo.DistillKL()(s["logits"], t["logits"], 1 + 20 * sigmoid(x))


LOSSES = {"ctkd": Theirs(curriculum)}
