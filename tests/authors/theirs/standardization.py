"""Logit standardization."""

from torch import Tensor

from tests.authors.side import Own, Side, Theirs
from tests.checkouts import from_checkout

REPOSITORY = "sunshangquan/logit-standardization-KD"

distiller = from_checkout(REPOSITORY, "mdistiller.distillers.KD")


def standardized(s: Side, t: Side, labels: Tensor, own: Own) -> Tensor:
    return distiller.kd_loss(s["logits"], t["logits"], 2.0, True)


LOSSES = {"kd+ls": Theirs(standardized)}
