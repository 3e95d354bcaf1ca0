"""SimKD, SemCKD, and SRRL as their authors compare it: put together as in `helper/loops.py`."""

from torch import Tensor, nn

from tests.authors.side import Own, Side, Theirs
from tests.checkouts import from_checkout

REPOSITORY = "DefangChen/SimKD"

util = from_checkout(REPOSITORY, "models.util")
sem = from_checkout(REPOSITORY, "distiller_zoo.SemCKD")


def calibration(s: Side, t: Side, labels: Tensor, own: Own) -> Tensor:
    widths = ([f.shape[1] for f in side.stages] for side in (s, t))
    attention = own(util.SelfA(len(labels), *widths, soft=1.0))
    return sem.SemCKDLoss()(*attention(s.stages, t.stages))


def regression(s: Side, t: Side, labels: Tensor, own: Own) -> Tensor:
    e_s, e_t = s["embedding"], t["embedding"]
    classifier = own(nn.Linear(e_t.shape[1], t["logits"].shape[1]), "classifier.")
    classifier.requires_grad_(False)  # it is the teacher's
    moved, answer = own(util.SRRL(s_n=e_s.shape[1], t_n=e_t.shape[1]))(e_s, classifier)
    mse = nn.MSELoss()
    return mse(moved, e_t) + mse(answer, t["logits"])


def projected(s: Side, t: Side, labels: Tensor, own: Own) -> Tensor:
    f_s, f_t = s["stage3"], t["stage3"]
    classifier = nn.Linear(f_t.shape[1], t["logits"].shape[1])
    projector = own(util.SimKD(s_n=f_s.shape[1], t_n=f_t.shape[1]))
    ours, theirs, _ = projector(f_s, f_t, classifier)
    return nn.MSELoss()(ours, theirs)


LOSSES = {
    "semckd": Theirs(calibration),
    "semckd, pooled": Theirs(calibration, "large"),
    "srrl": Theirs(regression),
    "simkd": Theirs(projected),
}
