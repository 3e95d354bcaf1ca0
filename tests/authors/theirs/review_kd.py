"""Knowledge review, as for CIFAR-100: the student's maps after, the teacher's before the ReLU."""

from torch import Tensor, nn

from tests.authors.side import Own, Side, Theirs
from tests.checkouts import from_checkout

REPOSITORY = "dvlab-research/ReviewKD"

model = from_checkout(REPOSITORY, "model.reviewkd", "CIFAR-100")


class Says(nn.Module):
    """A student with these maps."""

    def __init__(self, s: Side) -> None:
        super().__init__()
        self.said = [*s.stages, s["embedding"][:, :, None, None]], s["logits"]

    def forward(self, x: Tensor, is_feat: bool) -> tuple[list[Tensor], Tensor]:
        return self.said


def review(s: Side, t: Side, labels: Tensor, own: Own) -> Tensor:
    target = [*t.before, t["embedding"][:, :, None, None]]
    ours = [*s.stages, s["embedding"][:, :, None, None]]
    widths_s, widths_t = ([f.shape[1] for f in maps] for maps in (ours, target))
    sizes_s, sizes_t = ([f.shape[2] for f in maps[::-1]] for maps in (ours, target))
    student = own(model.ReviewKD(Says(s), widths_s, widths_t, sizes_s, sizes_t))
    results, _ = student(s["stage1"])
    return model.hcl(results, target)


LOSSES = {"reviewkd": Theirs(review), "reviewkd, other sizes": Theirs(review, "large")}
