"""Transformed teacher matching."""

from torch import Tensor

from tests.authors.side import Own, Side, Theirs
from tests.checkouts import from_checkout

REPOSITORY = "zkxufo/TTM"

zoo = from_checkout(REPOSITORY, "distiller_zoo")


def plain(s: Side, t: Side, labels: Tensor, own: Own) -> Tensor:
    return zoo.TTM(0.1)(s["logits"], t["logits"])


def weighted(s: Side, t: Side, labels: Tensor, own: Own) -> Tensor:
    return zoo.WTTM(0.1)(s["logits"], t["logits"])


LOSSES = {"ttm": Theirs(plain), "wttm": Theirs(weighted)}
