"""Refined logit distillation, with one temperature and with two."""

from torch import Tensor

from tests.authors.side import Own, Side, Theirs
from tests.checkouts import from_checkout

REPOSITORY = "zju-SWJ/RLD"

distiller = from_checkout(REPOSITORY, "mdistiller.distillers.RLD")


def one(s: Side, t: Side, labels: Tensor, own: Own) -> Tensor:
    return distiller.rld_loss(s["logits"], t["logits"], labels, 1.0, 8.0, 4.0, False, 4.0)


def two(s: Side, t: Side, labels: Tensor, own: Own) -> Tensor:
    return distiller.rld_loss(s["logits"], t["logits"], labels, 1.0, 8.0, 4.0, False, 1.0)


LOSSES = {"rld": Theirs(one), "rld, two temperatures": Theirs(two)}
