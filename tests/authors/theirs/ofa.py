"""One for all, with a CNN as student."""

from types import SimpleNamespace

from torch import Tensor, nn

from tests.authors.side import Own, Side, Theirs
from tests.checkouts import from_checkout

REPOSITORY = "Hao840/OFAKD"

distillers = from_checkout(REPOSITORY, "distillers.ofa")


class Says(nn.Module):
    """A network with three stages, which counts them as the last three of four."""

    def __init__(self, side: Side) -> None:
        super().__init__()
        self.side = side

    def stage_info(self, stage: int) -> tuple[int, object]:
        if stage == -1:
            return -1, self.side["embedding"].shape[1]
        index = max(stage - 2, 0)
        return index, tuple(self.side.stages[index].shape[1:])

    def forward(self, image: Tensor, requires_feat: bool = False) -> object:
        return (self.side["logits"], self.side.stages) if requires_feat else self.side["logits"]


def one_for_all(s: Side, t: Side, labels: Tensor, own: Own) -> Tensor:
    weights = {"ofa_loss_weight": 1.0, "gt_loss_weight": 0.0, "kd_loss_weight": 1.0}
    args = SimpleNamespace(
        ofa_eps=[1.0, 1.1, 1.2, 1.5],
        ofa_stage=[2, 3, 4],
        ofa_temperature=1.0,
        num_classes=s["logits"].shape[1],
        **weights,
    )
    both = distillers.OFA(Says(s), Says(t), nn.CrossEntropyLoss(), args)
    own(both.projector)
    _, losses = both(s["stage1"], labels)
    return losses["loss_ofa"] + losses["loss_kd"]


LOSSES = {"ofa": Theirs(one_for_all)}
