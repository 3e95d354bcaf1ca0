"""MLKD, whose code reads two views of each image: here both are the same."""

from types import SimpleNamespace

import torch
from torch import Tensor, nn

from tests.authors.side import Own, Side, Theirs
from tests.checkouts import from_checkout

REPOSITORY = "Jin-Ying/Multi-Level-Logit-Distillation"

distiller = from_checkout(REPOSITORY, "mdistiller.distillers.KD_ours")


class Says(nn.Module):
    """A network that answers the same to everything."""

    def __init__(self, logits: Tensor) -> None:
        super().__init__()
        self.logits = logits

    def forward(self, image: Tensor) -> tuple[Tensor, None]:
        return self.logits, None


def multi_level(s: Side, t: Side, labels: Tensor, own: Own) -> Tensor:
    weights = SimpleNamespace(CE_WEIGHT=0.1, KD_WEIGHT=1.0)
    cfg = SimpleNamespace(KD=SimpleNamespace(TEMPERATURE=4.0, LOSS=weights))
    both = distiller.KD_ours(Says(s["logits"]), Says(t["logits"]), cfg)
    image = torch.zeros(())
    _, losses = both.forward_train(image_weak=image, image_strong=image, target=labels)
    return losses["loss_kd"] + losses["loss_cc"] + losses["loss_bc"]


LOSSES = {"mlkd": Theirs(multi_level)}
