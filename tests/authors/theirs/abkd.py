"""Alpha-beta divergences."""

from argparse import Namespace

from torch import Tensor

from tests.authors.side import Own, Run, Side, Theirs
from tests.checkouts import from_checkout

REPOSITORY = "ghwang-s/abkd"

zoo = from_checkout(REPOSITORY, "distiller_zoo.abkl", "standard_classification")


def powers(alpha: float, beta: float) -> Run:
    def run(s: Side, t: Side, labels: Tensor, own: Own) -> Tensor:
        loss = zoo.ABKL(Namespace(kd_T=4.0, ab_alpha=alpha, ab_beta=beta))
        return loss(s["logits"], t["logits"])[0]

    return run


LOSSES = {"abkd": Theirs(powers(0.8, 0.3)), "abkd, reverse": Theirs(powers(0.0, 1.0))}
