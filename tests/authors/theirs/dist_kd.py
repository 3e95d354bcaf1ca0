"""DIST, as its authors use it for segmentation: at temperature 1."""

from torch import Tensor

from tests.authors.side import Own, Side, Theirs
from tests.checkouts import from_checkout

REPOSITORY = "hunto/DIST_KD"

dist_kd = from_checkout(REPOSITORY, "losses.dist_kd", "segmentation")


def dist(s: Side, t: Side, labels: Tensor, own: Own) -> Tensor:
    return dist_kd.DIST(beta=1.0, gamma=3.0)(s["logits"], t["logits"])


LOSSES = {"dist": Theirs(dist)}
