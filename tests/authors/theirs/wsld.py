"""WSLD, whose code has ImageNet's classes built in."""

import sys
from types import ModuleType, SimpleNamespace

from torch import Tensor, nn

from tests.authors.side import Own, Side, Theirs
from tests.checkouts import from_checkout

REPOSITORY = "bellymonster/Weighted-Soft-Label-Distillation"

# What it reads of its own settings, which ask for more packages.
settings = ModuleType("imagenet_train_cfg")
settings.cfg = SimpleNamespace(optim=SimpleNamespace(label_smooth=False))
sys.modules["imagenet_train_cfg"] = settings
distiller = from_checkout(REPOSITORY, "knowledge_distiller")


def weighted(s: Side, t: Side, labels: Tensor, own: Own) -> Tensor:
    both = distiller.WSLDistiller(lambda x: t["logits"], lambda x: s["logits"])
    del both.hard_loss  # of the labels alone
    both.hard_loss = lambda logits, labels: 0.0
    _, loss = both(nn.Identity(), labels)
    return loss / both.alpha


LOSSES = {"wsld": Theirs(weighted, classes=1000)}
