"""Inter-channel correlation, as for CIFAR-100."""

from argparse import Namespace

from torch import Tensor

from tests.authors.side import Own, Side, Theirs
from tests.checkouts import from_checkout

REPOSITORY = "ADLab-AutoDrive/ICKD"

zoo = from_checkout(REPOSITORY, "distiller_zoo.ICKD", "Cifar100")


def correlation(s: Side, t: Side, labels: Tensor, own: Own) -> Tensor:
    f_s, f_t = s["stage3"], t["stage3"]
    loss = own(zoo.ICKDLoss(Namespace(s_dim=f_s.shape[1], feat_dim=f_t.shape[1])))
    return sum(loss([f_s], [f_t]))


LOSSES = {"ickd": Theirs(correlation)}
