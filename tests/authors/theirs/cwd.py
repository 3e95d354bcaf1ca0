"""Channel-wise distillation, with the settings of its README for logits of segmentation."""

from torch import Tensor

from tests.authors.side import Own, Side, Theirs
from tests.checkouts import from_checkout

REPOSITORY = "irfanICMLL/TorchDistiller"

criterion = from_checkout(REPOSITORY, "utils.criterion", "SemSeg-distill")


def channels(s: Side, t: Side, labels: Tensor, own: Own) -> Tensor:
    return criterion.CriterionCWD("channel", "kl", 4.0)(s["stage2"], t["stage2"])


LOSSES = {"cwd": Theirs(channels, "twin")}
