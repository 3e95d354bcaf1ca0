"""SEED, so sharp that the teacher's answer is the example itself: contrast with a queue."""

import torch
from torch import Tensor, nn

from tests.authors.inputs import normal
from tests.authors.side import Own, Side, Theirs
from tests.checkouts import from_checkout

REPOSITORY = "jacobswan1/SEED"

builder = from_checkout(REPOSITORY, "seed.builder")


class Says(nn.Module):
    """A network whose embedding goes through one more layer."""

    def __init__(self, embedding: Tensor, width: int) -> None:
        super().__init__()
        self.embedding = embedding
        self.linear = nn.Linear(embedding.shape[1], width)

    def forward(self, image: Tensor) -> Tensor:
        return self.linear(self.embedding)


def queue(s: Side, t: Side, labels: Tensor, own: Own) -> Tensor:
    queued, e_t = 16, t["embedding"]

    def student(num_classes: int) -> nn.Module:
        return Says(s["embedding"], num_classes)

    def teacher(num_classes: int, width_multiplier: int) -> nn.Module:
        return Says(e_t, num_classes)

    both = builder.SEED(student, teacher, dim=16, K=queued, t=0.07, temp=1e-6, dist=False)
    own(both.student, "student.")
    own(both.teacher, "teacher.")
    with torch.no_grad():
        remembered = both.teacher.linear(
            torch.tensor(normal("queue", (queued, e_t.shape[1])), dtype=e_t.dtype)
        )
        both.queue = nn.functional.normalize(remembered.T, dim=0)
    answer, target = both(labels)
    return -(target * nn.functional.log_softmax(answer, dim=1)).sum(dim=1).mean()


LOSSES = {"queue": Theirs(queue)}
