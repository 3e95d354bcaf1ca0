"""WKD-L, with the costs that its code makes of the teacher's classifier."""

from types import SimpleNamespace

import torch
from torch import Tensor, nn

from tests.authors.side import Own, Side, Theirs
from tests.checkouts import from_checkout

REPOSITORY = "JiamingLv/WKD"

distiller = from_checkout(REPOSITORY, "mdistiller.distillers.WKD")

LOSS = SimpleNamespace(
    CE_WEIGHT=1.0, WKD_LOGIT_WEIGHT=600.0, WKD_FEAT_WEIGHT=0.0, COSINE_DECAY_EPOCH=150
)
SETTINGS = SimpleNamespace(
    LOSS=LOSS,
    TEMPERATURE=8.0,
    SINKHORN=SimpleNamespace(LAMBDA=0.05, ITER=10),
    COST_MATRIX="fc",
    COST_MATRIX_SHARPEN=1.0,
)


class Says(nn.Module):
    """A network that answers the same to everything."""

    def __init__(self, logits: Tensor, classifier: nn.Linear | None = None) -> None:
        super().__init__()
        self.logits, self.fc = logits, classifier

    def forward(self, image: Tensor) -> tuple[Tensor, None]:
        return self.logits, None


def by_classifier(s: Side, t: Side, labels: Tensor, own: Own) -> Tensor:
    classifier = own(nn.Linear(t["embedding"].shape[1], t["logits"].shape[1]), "classifier.")
    classifier.requires_grad_(False)
    cfg = SimpleNamespace(WKD=SETTINGS, SOLVER=SimpleNamespace(EPOCHS=240))
    both = distiller.WKD(Says(s["logits"]), Says(t["logits"], classifier), cfg)
    both.dist = both.dist.float()  # its Sinkhorn iterations are in single precision
    _, losses = both.forward_train(image=torch.zeros(()), target=labels, epoch=1)
    return losses["loss_kd"]


LOSSES = {"wkd": Theirs(by_classifier)}
