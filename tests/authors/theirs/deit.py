"""DeiT: the teacher's decision, and its softened answer, for a head of its own."""

from functools import partial

from torch import Tensor

from tests.authors.side import Own, Side, Theirs
from tests.checkouts import from_checkout

REPOSITORY = "facebookresearch/deit"

losses = from_checkout(REPOSITORY, "losses")


def distillation(kind: str, s: Side, t: Side, labels: Tensor, own: Own) -> Tensor:
    loss = losses.DistillationLoss(lambda *_: 0.0, lambda _: t["logits"], kind, 1.0, 3.0)
    value = loss(labels, (s["logits"], s["logits"]), labels)
    # The soft one is averaged over the classes too, as PyTorch once did unasked.
    return value if kind == "hard" else value * s["logits"].shape[1]


LOSSES = {
    "deit, hard": Theirs(partial(distillation, "hard")),
    "deit, soft": Theirs(partial(distillation, "soft")),
}
