"""The benchmark of DKD's authors."""

from torch import Tensor

from tests.authors.side import Own, Side, Theirs
from tests.checkouts import from_checkout

REPOSITORY = "megvii-research/mdistiller"

distillers = from_checkout(REPOSITORY, "mdistiller.distillers.DKD")


def decoupled(s: Side, t: Side, labels: Tensor, own: Own) -> Tensor:
    return distillers.dkd_loss(s["logits"], t["logits"], labels, 1.0, 8.0, 4.0)


LOSSES = {"dkd": Theirs(decoupled)}
