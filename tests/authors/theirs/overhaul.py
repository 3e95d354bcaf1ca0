"""OFD, whose margins come from the last batch norm of each stage of the teacher."""

import torch
from torch import Tensor, nn

from tests.authors.side import Own, Side, Theirs
from tests.checkouts import from_checkout

REPOSITORY = "clovaai/overhaul-distillation"

distiller = from_checkout(REPOSITORY, "distiller", "CIFAR-100")


class Says(nn.Module):
    """A network with these maps, which are what its batch norms put out in training."""

    def __init__(self, maps: list[Tensor]) -> None:
        super().__init__()
        self.maps = maps

    def get_channel_num(self) -> list[int]:
        return [f.shape[1] for f in self.maps]

    def get_bn_before_relu(self) -> list[nn.Module]:
        return [_norm_of(f) for f in self.maps]

    def extract_feature(self, x: Tensor, preReLU: bool) -> tuple[list[Tensor], None]:
        return list(self.maps), None


def _norm_of(f: Tensor) -> nn.Module:
    norm = nn.BatchNorm2d(f.shape[1])
    with torch.no_grad():
        norm.bias.copy_(f.mean(dim=(0, 2, 3)))
        norm.weight.copy_(f.std(dim=(0, 2, 3), correction=0))
    return norm


def overhaul(s: Side, t: Side, labels: Tensor, own: Own) -> Tensor:
    both = own(distiller.Distiller(Says(t.before), Says(s.before)))
    _, loss = both(torch.zeros(()))
    return loss / len(labels)  # as its training does


LOSSES = {"ofd": Theirs(overhaul)}
