"""Tian's benchmark: a dozen methods in one frame, put together as its `helper/loops.py` does."""

from argparse import Namespace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from tests.authors.inputs import normal
from tests.authors.side import Own, Side, Theirs
from tests.checkouts import from_checkout

REPOSITORY = "HobbitLong/RepDistiller"

zoo = from_checkout(REPOSITORY, "distiller_zoo")
util = from_checkout(REPOSITORY, "models.util")
crd = from_checkout(REPOSITORY, "crd.criterion")


def _shapes(maps: list[Tensor]) -> list[Any]:
    return [f.shape for f in maps]


def kd(s: Side, t: Side, labels: Tensor, own: Own) -> Tensor:
    return zoo.DistillKL(4)(s["logits"], t["logits"])


def attention(s: Side, t: Side, labels: Tensor, own: Own) -> Tensor:
    return sum(zoo.Attention()(s.stages, t.stages))


def nst(s: Side, t: Side, labels: Tensor, own: Own) -> Tensor:
    return sum(zoo.NSTLoss()(s.stages, t.stages))


def similarity(s: Side, t: Side, labels: Tensor, own: Own) -> Tensor:
    return sum(zoo.Similarity()([s["stage3"]], [t["stage3"]]))


def relational(s: Side, t: Side, labels: Tensor, own: Own) -> Tensor:
    return zoo.RKDLoss()(s["embedding"], t["embedding"])


def pkt(s: Side, t: Side, labels: Tensor, own: Own) -> Tensor:
    return zoo.PKT()(s["embedding"], t["embedding"])


def correlation(s: Side, t: Side, labels: Tensor, own: Own) -> Tensor:
    embed_s = own(util.LinearEmbed(s["embedding"].shape[1], 128), "student.")
    embed_t = own(util.LinearEmbed(t["embedding"].shape[1], 128), "teacher.")
    return zoo.Correlation()(embed_s(s["embedding"]), embed_t(t["embedding"]))


def vid(s: Side, t: Side, labels: Tensor, own: Own) -> Tensor:
    total = torch.zeros(())
    for i, (f_s, f_t) in enumerate(zip(s.stages, t.stages, strict=True)):
        width = f_t.shape[1]
        total = total + own(zoo.VIDLoss(f_s.shape[1], width, width), f"{i}.")(f_s, f_t)
    return total


def hint(stage: str, s: Side, t: Side, labels: Tensor, own: Own) -> Tensor:
    f_s, f_t = s[stage], t[stage]
    return zoo.HintLoss()(own(util.ConvReg(f_s.shape, f_t.shape))(f_s), f_t)


def boundaries(s: Side, t: Side, labels: Tensor, own: Own) -> Tensor:
    connector = own(util.Connector(_shapes(s.before), _shapes(t.before)))
    return sum(zoo.ABLoss(len(s.before))(connector(s.before), t.before))


def fsp(s: Side, t: Side, labels: Tensor, own: Own) -> Tensor:
    return sum(zoo.FSP(_shapes(s.stages), _shapes(t.stages))(s.stages, t.stages))


def paraphraser(s: Side, t: Side, labels: Tensor, own: Own) -> Tensor:
    _, again = own(util.Paraphraser(t["stage3"].shape, 0.5, False))(t["stage3"])
    return nn.MSELoss()(again, t["stage3"])


def factors(s: Side, t: Side, labels: Tensor, own: Own) -> Tensor:
    f_s, f_t = s["stage3"], t["stage3"]
    translator = own(util.Translator(f_s.shape, f_t.shape, 0.5, True), "translator.")
    paraphraser = own(util.Paraphraser(f_t.shape, 0.5, False), "paraphraser.")
    with torch.no_grad():  # its optimizer is over, and never sees it
        target = paraphraser(f_t, is_factor=True)
    return zoo.FactorTransfer()(translator(f_s), target)


def svd(s: Side, t: Side, labels: Tensor, own: Own) -> Tensor:
    # Which sign a singular vector has is left to the linear algebra library: here the one whose
    # entries have a positive sum.
    plain = torch.svd

    def signed(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        u, values, v = plain(x)
        return u, values, v * torch.where(v.sum(dim=1, keepdim=True) < 0, -1.0, 1.0)

    torch.svd = signed
    try:
        return sum(zoo.KDSVD()(s.stages, t.stages))
    finally:
        torch.svd = plain


def contrast(s: Side, t: Side, labels: Tensor, own: Own) -> Tensor:
    # Two examples of each class, and two more rows of the bank: so all have as many negatives, and
    # the sum over all of them is what drawing them would be on average.
    rows, width = 2 * len(labels), 16
    of_row = torch.cat([labels, labels])
    others = torch.stack([torch.nonzero(of_row != label)[:, 0] for label in labels])
    opt = Namespace(
        s_dim=s["embedding"].shape[1],
        t_dim=t["embedding"].shape[1],
        feat_dim=width,
        n_data=rows,
        nce_k=others.shape[1],
        nce_t=0.07,
        nce_m=0.5,
    )
    loss = own(crd.CRDLoss(opt))
    for i in (1, 2):
        bank = nn.functional.normalize(torch.from_numpy(normal(f"bank{i}", (rows, width))))
        getattr(loss.contrast, f"memory_v{i}").copy_(bank)
    loss.contrast.params[2:4] = torch.tensor([3.0, 5.0]) * rows
    index = torch.arange(len(labels))
    drawn = torch.cat([index[:, None], others], dim=1)
    return loss(s["embedding"], t["embedding"], index, drawn)


LOSSES = {
    "kd": Theirs(kd),
    "at": Theirs(attention),
    "at, pooled": Theirs(attention, "large"),
    "nst": Theirs(nst),
    "nst, pooled": Theirs(nst, "large"),
    "sp": Theirs(similarity),
    "rkd": Theirs(relational),
    "pkt": Theirs(pkt),
    "cc": Theirs(correlation),
    "vid": Theirs(vid),
    "fitnet": Theirs(partial(hint, "stage2")),
    "fitnet, half as large": Theirs(partial(hint, "stage2"), "large"),
    "ab": Theirs(boundaries),
    "fsp": Theirs(fsp, "twin"),
    "paraphraser": Theirs(paraphraser),
    "ft": Theirs(factors),
    "kdsvd": Theirs(svd, "twin"),
    "crd": Theirs(contrast),
}
