"""SRRL as its authors train it on ImageNet: `train_imagenet_distillation.py`."""

import torch
from torch import Tensor, nn

from tests.authors.side import Own, Side, Theirs
from tests.checkouts import from_checkout

REPOSITORY = "jingyang2017/KD_SRRL"

ain = from_checkout(REPOSITORY, "distiller_zoo.AIN")


def regression(s: Side, t: Side, labels: Tensor, own: Own) -> Tensor:
    f_s, f_t = s["stage3"], t["stage3"]
    moved = own(ain.transfer_conv(f_s.shape[1], f_t.shape[1]))(f_s)
    classifier = own(nn.Linear(f_t.shape[1], t["logits"].shape[1]), "classifier.")
    classifier.requires_grad_(False)  # it is the teacher's
    answer = classifier(moved.mean(dim=(2, 3)))
    return ain.statm_loss()(moved, f_t) + torch.nn.functional.mse_loss(answer, t["logits"])


LOSSES = {"srrl, authors": Theirs(regression)}
