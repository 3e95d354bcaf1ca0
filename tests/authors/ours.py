"""Our losses beside those in authors' code, and which of our parameters is which of theirs."""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import numpy as np

from kdjax.losses import (
    AB,
    CC,
    CRD,
    CTKD,
    CWD,
    DIST,
    DKD,
    FSP,
    FT,
    ICKD,
    KDSVD,
    MGD,
    MLKD,
    NST,
    OFA,
    OFD,
    PKT,
    RKD,
    SP,
    SRRL,
    VID,
    WSLD,
    AttentionTransfer,
    ContrastiveQueue,
    DistillationLoss,
    FitNet,
    HardTarget,
    LogitStandardization,
    Paraphraser,
    ReviewKD,
    SemCKD,
    SimKD,
    SoftTarget,
    TfKD,
)
from kdjax.models import ReusedClassifier
from kdjax.models.base import VisionModel
from kdjax.types import Batch, Outputs
from tests.authors.entry import Ours
from tests.authors.inputs import WIDTHS, labels, normal
from tests.authors.recent import CLASSIFIER, RECENT

STAGES = ("stage1", "stage2", "stage3")


class Echo(VisionModel):
    """A network whose last map is its input."""

    def __call__(self, images: Any, train: bool = False) -> Outputs:
        """As it is."""
        maps = {"stage3": images}
        logits = images[:, 0, 0, :1]
        return Outputs(logits, maps, images.mean(axis=(1, 2)), pooled=maps)


class Projected(DistillationLoss):
    """SimKD, with the projector that ends the student's network."""

    @nn.compact
    def __call__(self, student: Outputs, teacher: Outputs | None, batch: Batch) -> Any:
        """Per example."""
        network = ReusedClassifier(backbone=Echo(), width=WIDTHS["teacher"][-1], name="student")
        return SimKD()(network(student.features["stage3"], train=True), teacher, batch)


def _conv_norms(names: Mapping[str, tuple[str, str]]) -> dict[str, str]:
    """Of layers `conv` and `bn` under a path of ours, the two of theirs."""
    return {
        f"{path}/{layer}": key
        for path, keys in names.items()
        for layer, key in zip(("conv", "bn"), keys, strict=True)
    }


REVIEW = {
    **_conv_norms({f"narrow{4 - i}": (f"abfs.{i}.conv1.0", f"abfs.{i}.conv1.1") for i in range(4)}),
    **_conv_norms({f"out{4 - i}": (f"abfs.{i}.conv2.0", f"abfs.{i}.conv2.1") for i in range(4)}),
    **{f"attention{4 - i}": f"abfs.{i}.att_conv.0" for i in range(1, 4)},
}

SEMANTIC = {
    **{f"query_{s}_hidden": f"query_{i}.linear1" for i, s in enumerate(STAGES)},
    **{f"query_{s}": f"query_{i}.linear2" for i, s in enumerate(STAGES)},
    **{f"key_{s}_hidden": f"key_{i}.linear1" for i, s in enumerate(STAGES)},
    **{f"key_{s}": f"key_{i}.linear2" for i, s in enumerate(STAGES)},
}
for i, ours in enumerate(STAGES):
    for j, theirs in enumerate(STAGES):
        path, key = f"{ours}_{theirs}", f"regressor{i}{j}.regressor"
        SEMANTIC |= _conv_norms({f"{path}_in": (f"{key}.0", f"{key}.1")})
        SEMANTIC |= _conv_norms({f"{path}_middle": (f"{key}.3", f"{key}.4")})
        SEMANTIC[f"{path}_out"] = f"{key}.6"

ONE_FOR_ALL = {f"{s}_classifier": key for s, key in zip(STAGES, ("2.4", "3.3", "4.3"), strict=True)}
for i, stage in enumerate(STAGES[:2]):
    for block in range(1, 3 - i):
        path, key = f"{stage}_exit{block}", f"{i + 2}.{block - 1}.op"
        ONE_FOR_ALL |= {f"{path}/depthwise1": f"{key}.0", f"{path}/depthwise2": f"{key}.4"}
        ONE_FOR_ALL |= _conv_norms({f"{path}/pointwise1": (f"{key}.1", f"{key}.2")})
        ONE_FOR_ALL |= _conv_norms({f"{path}/pointwise2": (f"{key}.5", f"{key}.6")})
ONE_FOR_ALL["stage3_exit"] = "4.0"

ENCODER = {f"paraphraser/conv{i}": f"encoder.{3 * i}" for i in range(3)}
DECODER = {f"decoder/conv{i}": f"decoder.{3 * i}" for i in range(3)}
TRANSLATOR = {
    f"translator/{layer}{i}": f"translator.encoder.{3 * i + j}"
    for i in range(3)
    for j, layer in enumerate(("conv", "bn"))
}


def _bank() -> dict[str, Any]:
    """Two rows for each example of the batch, as `repdistiller.contrast` has them."""
    rows = [normal(f"bank{i}", (2 * len(labels()), 16)) for i in (1, 2)]
    rows = [x / np.linalg.norm(x, axis=1, keepdims=True) for x in rows]
    log_z = np.log(np.float32([5, 3]))
    return {"bank": np.stack(rows), "label": np.tile(labels(), 2), "log_z": log_z}


OURS: dict[str, Ours] = {
    "kd": Ours(SoftTarget(), "repdistiller"),
    "kd+ls": Ours(LogitStandardization(), "standardization"),
    "dkd": Ours(DKD(), "mdistiller"),
    "wsld": Ours(WSLD(), "wsld", differs="theirs is the soft cross-entropy, with the same slope"),
    "dist": Ours(DIST(beta=1.0, gamma=3.0, temperature=1.0), "dist_kd"),
    "mlkd": Ours(MLKD(), "multi_level", so_that="both of their views are one"),
    "ctkd": Ours(CTKD(strength=0.5), "ctkd", {"temperature": "global_T"}),
    "fitnet": Ours(FitNet(), "repdistiller", {"conv": "conv", "bn": "bn"}, flat=("conv.bias",)),
    "fitnet, half as large": Ours(
        FitNet(),
        "repdistiller",
        {"conv": "conv", "bn": "bn"},
        transposed=("conv",),
        flat=("conv.bias",),
    ),
    "at": Ours(AttentionTransfer(), "repdistiller"),
    "at, pooled": Ours(AttentionTransfer(), "repdistiller"),
    "nst": Ours(NST(), "repdistiller"),
    "nst, pooled": Ours(NST(), "repdistiller"),
    "fsp": Ours(FSP(), "repdistiller"),
    "paraphraser": Ours(
        Paraphraser(), "repdistiller", ENCODER | DECODER, transposed=tuple(DECODER)
    ),
    "ft": Ours(
        FT(),
        "repdistiller",
        {path: f"paraphraser.{key}" for path, key in (ENCODER | DECODER).items()} | TRANSLATOR,
        transposed=tuple(DECODER),
        flat=tuple(f"translator.encoder.{i}.bias" for i in (0, 3, 6)),
    ),
    "ab": Ours(
        AB(),
        "repdistiller",
        _conv_norms(
            {
                f"connector_{s}": (f"connectors.{i}.conv", f"connectors.{i}.bn")
                for i, s in enumerate(STAGES)
            }
        ),
        flat=tuple(f"connectors.{i}.conv.bias" for i in range(3)),
    ),
    "vid": Ours(
        VID(),
        "repdistiller",
        {f"normal{i}/conv{j}": f"{i}.regressor.{2 * j}" for i in range(3) for j in range(3)}
        | {f"normal{i}/log_scale": f"{i}.log_scale" for i in range(3)},
    ),
    "ofd": Ours(
        OFD(),
        "overhaul",
        _conv_norms(
            {
                f"connector_{s}": (f"Connectors.{i}.0", f"Connectors.{i}.1")
                for i, s in enumerate(STAGES)
            }
        ),
        so_that="the teacher's batch norm has the moments that ours measures",
    ),
    "reviewkd": Ours(ReviewKD(), "review_kd", REVIEW),
    "reviewkd, other sizes": Ours(ReviewKD(), "review_kd", REVIEW),
    "srrl": Ours(
        SRRL(), "simkd", _conv_norms({"regressor": ("transfer.0", "transfer.1")}) | CLASSIFIER
    ),
    "srrl, authors": Ours(
        SRRL(variant="authors"),
        "srrl",
        _conv_norms({"regressor": ("Connectors.0", "Connectors.1")}) | CLASSIFIER,
    ),
    "simkd": Ours(
        Projected(),
        "simkd",
        {
            f"student/projector_{layer}{i}": f"transfer.{3 * i - 3 + j}"
            for i in (1, 2, 3)
            for j, layer in enumerate(("conv", "bn"))
        },
    ),
    "semckd": Ours(SemCKD(anchors=8), "simkd", SEMANTIC),
    "semckd, pooled": Ours(SemCKD(anchors=8), "simkd", SEMANTIC),
    "cwd": Ours(CWD(stage="stage2"), "cwd"),
    "mgd": Ours(
        MGD(masked=0.0),
        "mgd",
        {"align": "align", "generator_conv1": "generation.0", "generator_conv2": "generation.2"},
        so_that="nothing is masked",
    ),
    "ickd": Ours(ICKD(), "ickd", _conv_norms({"adapter": ("embed_s.conv2d", "embed_s.l2norm")})),
    "kdsvd": Ours(KDSVD(), "repdistiller", so_that="signs of singular vectors are chosen as ours"),
    "ofa": Ours(OFA(eps=(1.0, 1.1, 1.2, 1.5)), "ofa", ONE_FOR_ALL),
    "deit, hard": Ours(HardTarget(), "deit"),
    "deit, soft": Ours(SoftTarget(3.0), "deit"),
    "sp": Ours(SP(), "repdistiller"),
    "cc": Ours(
        CC(), "repdistiller", {"embed_student": "student.linear", "embed_teacher": "teacher.linear"}
    ),
    "rkd": Ours(RKD(), "repdistiller"),
    "pkt": Ours(PKT(), "repdistiller"),
    "crd": Ours(
        CRD(negatives=12, width=16, examples=16),
        "repdistiller",
        {"project_student": "embed_s.linear", "project_teacher": "embed_t.linear"},
        given={"memory": _bank()},
        so_that="all negatives are drawn once",
    ),
    "queue": Ours(
        ContrastiveQueue(size=16, width=16),
        "seed",
        {"project_student": "student.linear", "project_teacher": "teacher.linear"},
        given={
            "memory": {
                "embedding": normal("queue", (16, WIDTHS["teacher"][-1])),
                "label": np.full(16, 9),
            }
        },
        one_class=True,
        so_that="their teacher's answer is so sharp that it is the example itself",
    ),
    "tfkd": Ours(TfKD(), "teacher_free"),
    **RECENT,
}
