"""Every cell of the CIFAR-100 tables of the literature: a pair of networks and a method.

Train each teacher once, and let the cells that need it share it:

    kdjax train configs/cifar100.py --pair vgg13-vgg8 --workdir runs/vgg13
    kdjax distill configs/cifar100.py --pair vgg13-vgg8 --method at --teacher.run runs/vgg13/teacher

Every cell also trains its student alone; `--baseline False` spares that from the second cell on.

The protocol is RepDistiller's: all 50,000 training images, batches of 64, 240 epochs, SGD with
weight decay on everything that is trained, a learning rate of 0.05 (0.01 for MobileNetV2 and
ShuffleNets) that falls tenfold after 150, 180 and 210 epochs. No image is left to validate on, and
what counts is the last epoch. So the validation split is a part of the training images: it shows
how training goes, `best` is chosen by images that were trained on, and the teacher is taken as it
is after its last epoch. To choose on other images, at the cost of some accuracy:

    --data.train 'train[:90%]' --data.validation 'train[90%:]'

Methods of two stages have a phase of 30 epochs in front, at a constant rate: `ft` trains its
paraphraser there, `ab` and `fsp` the student below its classifier; then a fresh optimizer begins
with the protocol. Their student alone has the protocol only. `fsp` and `kdsvd` need networks of
equal widths, and refuse others.

A shorter run, with all else in proportion, drops of the rate, first phases and warm-ups of losses:

    kdjax distill configs/cifar100.py --method ft --length 24

Published numbers of other recipes than this one are marked so in their source.
"""

from typing import Annotated, Literal, NamedTuple

from kdjax.data.augment import Flip, PadCrop
from kdjax.experiment import (
    SGD,
    Constant,
    Data,
    Experiment,
    Fit,
    Phase,
    Published,
    Steps,
    Student,
    Teacher,
    Term,
)
from kdjax.losses import (
    AB,
    CC,
    CRD,
    CTKD,
    DIST,
    DKD,
    FSP,
    FT,
    ICKD,
    KDSVD,
    MLKD,
    NST,
    OFD,
    PKT,
    RKD,
    SP,
    SRRL,
    TTM,
    VID,
    WKD,
    AttentionTransfer,
    CrossEntropy,
    FitNet,
    LogitStandardization,
    Paraphraser,
    Ramp,
    ReviewKD,
    SemCKD,
    SimKD,
    SoftTarget,
)
from kdjax.models import NAMED, Model

MEAN, STD = (0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761)

PAIRS = (
    "wrn_40_2-wrn_16_2",
    "wrn_40_2-wrn_40_1",
    "resnet56-resnet20",
    "resnet110-resnet20",
    "resnet110-resnet32",
    "resnet32x4-resnet8x4",
    "vgg13-vgg8",
    "vgg13-mobilenet_v2_half",
    "resnet50_cifar-mobilenet_v2_half",
    "resnet50_cifar-vgg8",
    "resnet32x4-shuffle_v1",
    "resnet32x4-shuffle_v2",
    "wrn_40_2-shuffle_v1",
)
"""Teacher and student: of one kind, then of two kinds."""

LABELS = Term(CrossEntropy())
SOFT = Term(SoftTarget(temperature=4.0))


def objectives(teacher: str, student: str, scale: float = 1.0) -> dict[str, tuple[Term, ...]]:
    """The objective of every method for this pair, one a line."""
    warm = Ramp(epochs=20.0 * scale)
    ours, theirs = compared(student)
    second = ours[1] if ours else "stage2"
    review = REVIEW_WEIGHT.get(student, 5.0)
    return {
        "kd": (Term(CrossEntropy(), 0.1), Term(SoftTarget(temperature=4.0), 0.9)),
        "fitnet": (LABELS, Term(FitNet(stage=second, teacher_stage="stage2"), 100.0)),
        "at": (LABELS, Term(AttentionTransfer(stages=ours, teacher_stages=theirs), 1000.0)),
        "sp": (LABELS, Term(SP(), 3000.0)),
        "cc": (LABELS, Term(CC(), 0.02)),
        "vid": (LABELS, Term(VID(stages=ours, teacher_stages=theirs), 1.0)),
        "rkd": (LABELS, Term(RKD(), 1.0)),
        "pkt": (LABELS, Term(PKT(), 30000.0)),
        "ab": (LABELS,),  # after a first phase
        "ft": (LABELS, Term(FT(), 200.0)),  # after a first phase
        "fsp": (LABELS,),  # after a first phase
        "nst": (LABELS, Term(NST(stages=ours, teacher_stages=theirs), 50.0)),
        "crd": (LABELS, Term(CRD(), 0.8)),
        "crd+kd": (LABELS, SOFT, Term(CRD(), 0.8)),
        "kdsvd": (LABELS, Term(KDSVD(stages=ours, teacher_stages=theirs), 1.0)),
        "ickd": (LABELS, Term(ICKD(), 2.5)),
        "ofd": (LABELS, Term(OFD(stages=ours, teacher_stages=theirs), 0.001)),
        "reviewkd": (LABELS, Term(ReviewKD(stages=ours, teacher_stages=theirs), review, warm)),
        "dkd": (LABELS, Term(DKD(beta=dkd_beta(teacher, student)), 1.0, warm)),
        "dist": (LABELS, Term(DIST(), 1.0)),
        "ls": (Term(CrossEntropy(), 0.1), standardized(teacher, student)),
        "mlkd": (Term(CrossEntropy(), 0.2), Term(MLKD(), 0.9)),
        "ttm": (LABELS, Term(TTM(), 45.0)),
        "crd+wttm": (LABELS, Term(TTM(5.0, weighted=True), 4.0), Term(CRD(), 0.8)),
        "wkd": (LABELS, Term(wasserstein(student, scale), 1.0)),
        "ctkd": (Term(CrossEntropy(), 0.1), Term(CTKD(), 0.9)),
        "srrl": (LABELS, SOFT, Term(SRRL(), 1.0)),
        "semckd": (LABELS, SOFT, Term(SemCKD(stages=ours, teacher_stages=theirs), 400.0)),
        "simkd": (Term(SimKD(), 1.0),),
    }


def compared(student: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Stages of student and teacher, where not all of them: the benchmark looks at MobileNetV2
    after four of its seven."""
    if not student.startswith("mobilenet"):
        return (), ()
    return ("stage2", "stage3", "stage5", "stage7"), ("stage1", "stage2", "stage3", "stage4")


def first_phase(method: str, student: str, scale: float) -> Phase | None:
    """What a method of two stages does before the protocol, as in RepDistiller's `pretrain.py`."""
    vgg = student.startswith("vgg")
    ours, theirs = compared(student)
    stem = ("stem", "stage1", "stage2", "stage3", *(("stage4",) if vgg else ()))
    losses = {
        "ab": Term(AB(stages=ours, teacher_stages=theirs)),
        "ft": Term(Paraphraser()),
        "fsp": Term(FSP(stages=stem)),
    }
    if method not in losses:
        return None
    rate = 0.01 if method == "ft" and not vgg else peak(student)
    return Phase(
        epochs=30.0 * scale,
        losses=(losses[method],),
        train=PARAPHRASER if method == "ft" else ("student", "adapters"),
        freeze=() if method == "ft" else behind_the_features(student),
        schedule=Constant(peak=rate),
    )


PARAPHRASER = ("adapters/ft/paraphraser", "adapters/ft/decoder")


def behind_the_features(student: str) -> tuple[str, ...]:
    """What comes after the maps that AB and FSP compare."""
    last = {"mobilenet": "head", "shuffle_v2": "head", "wrn": "final_bn"}
    found = [name for start, name in last.items() if student.startswith(start)]
    return tuple(f"student/{name}" for name in ("classifier", *found))


REVIEW_WEIGHT = {"resnet20": 0.6, "resnet32": 1.0, "shuffle_v2": 8.0}
"""Of ReviewKD by student, where it is not 5: as in the authors' commands."""


def dkd_beta(teacher: str, student: str) -> float:
    """Weight of the other classes, as in the authors' files."""
    if teacher in ("resnet56", "resnet110"):
        return 2.0
    return 6.0 if teacher == "vgg13" or student.startswith("wrn") else 8.0


def standardized(teacher: str, student: str) -> Term:
    """Temperature and weight, as in the names of the authors' logs."""
    mobile = student.startswith("mobilenet")
    temperature = 3.0 if teacher == "vgg13" or mobile else 2.0
    weight = 1.0 if teacher == "resnet50_cifar" and mobile else 9.0
    return Term(LogitStandardization(temperature=temperature), weight)


def wasserstein(student: str, scale: float) -> WKD:
    """Weight and temperature as in the authors' files; they have two pairs."""
    weight, temperature = (200.0, 6.0) if student == "shuffle_v1" else (600.0, 8.0)
    fall = Ramp(start=weight, stop=0.0, begin=150.0 * scale, epochs=90.0 * scale, shape="cosine")
    return WKD(gamma=fall, temperature=temperature)


METHODS = tuple(objectives("wrn_40_2", "wrn_16_2"))


class Source(NamedTuple):
    """Who published a row, and which epoch they report."""

    text: str
    rule: Literal["last", "best"]
    own_baseline: bool = False
    """Their students alone are others than those of the table."""


SOURCES = {
    "crd": Source("Tian et al., 2020, arXiv:1910.10699, and the authors' RepDistiller", "last"),
    "dkd": Source("Zhao et al., 2022, arXiv:2203.08679, and the authors' mdistiller", "best"),
    "review": Source("Chen et al., 2021, arXiv:2104.09044; batch 128, rate 0.1, Nesterov", "best"),
    "dist": Source("Huang et al., 2022, arXiv:2205.10536", "best"),
    "ls": Source("Sun et al., 2024, arXiv:2403.01427, and the authors' code", "best"),
    "mlkd": Source("Sun et al., 2024, arXiv:2403.01427; 480 epochs, two views an image", "best"),
    "ttm": Source("Zheng & Yang, 2024, arXiv:2402.11148, and the authors' code", "best"),
    "wkd": Source("Lv et al., 2024, arXiv:2412.08139; costs of classes from features", "best"),
    "simkd": Source("Chen et al., 2022, arXiv:2203.14001, and the authors' code", "best", True),
}

# One column a pair, in the order of PAIRS; "-": not published.
TABLE = """
           wrn   wrn   res56 r110  r110  r32x4 vgg   vgg   r50   r50   r32x4 r32x4 wrn
           16_2  40_1  20    20    32    8x4   8     mobil mobil vgg8  shuf1 shuf2 shuf1
teacher    75.61 75.61 72.34 74.31 74.31 79.42 74.64 74.64 79.34 79.34 79.42 79.42 75.61 crd
baseline   73.26 71.98 69.06 69.06 71.14 72.50 70.36 64.60 64.60 70.36 70.50 71.82 70.50 crd
kd         74.92 73.54 70.66 70.67 73.08 73.33 72.98 67.37 67.35 73.81 74.07 74.45 74.83 crd
fitnet     73.58 72.24 69.21 68.99 71.06 73.50 71.02 64.14 63.16 70.69 73.59 73.54 73.73 crd
at         74.08 72.77 70.55 70.22 72.31 73.44 71.43 59.40 58.58 71.84 71.73 72.73 73.32 crd
sp         73.83 72.43 69.67 70.04 72.69 72.94 72.68 66.30 68.08 73.34 73.48 74.56 74.52 crd
cc         73.56 72.21 69.63 69.48 71.48 72.97 70.71 64.86 65.43 70.25 71.14 71.29 71.38 crd
vid        74.11 73.30 70.38 70.16 72.61 73.09 71.23 65.56 67.57 70.30 73.38 73.40 73.61 crd
rkd        73.35 72.22 69.61 69.25 71.82 71.90 71.48 64.52 64.43 71.50 72.28 73.21 72.21 crd
pkt        74.54 73.45 70.34 70.25 72.61 73.64 72.88 67.13 66.52 73.01 74.10 74.69 73.89 crd
ab         72.50 72.38 69.47 69.53 70.98 73.17 70.94 66.06 67.20 70.65 73.55 74.31 73.34 crd
ft         73.25 71.59 69.84 70.22 72.37 72.86 70.58 61.78 60.99 70.29 71.75 72.50 72.03 crd
fsp        72.91 -     69.95 70.11 71.89 72.62 70.23 -     -     -     -     -     -     crd
nst        73.68 72.24 69.60 69.53 71.96 73.30 71.53 58.16 64.96 71.28 74.12 74.68 74.89 crd
crd        75.48 74.14 71.16 71.46 73.48 75.51 73.94 69.73 69.11 74.30 75.11 75.65 76.05 crd
crd+kd     75.64 74.38 71.63 71.56 73.75 75.46 74.29 69.94 69.54 74.58 75.12 76.05 76.27 crd
reviewkd   76.12 75.09 71.89 -     73.89 75.63 74.84 70.37 69.89 -     77.45 77.78 77.14 review
dkd        76.23 74.81 71.97 -     74.11 76.32 74.68 69.71 70.35 -     76.45 77.07 76.70 dkd
dkd        -     -     -     71.06 -     -     -     -     -     -     -     -     -     ls
dist       -     74.43 71.75 -     -     76.31 -     -     -     -     -     77.35 -     dist
ls         76.11 74.37 71.43 71.48 74.17 76.62 74.36 68.61 69.02 -     -     75.56 -     ls
ctkd       75.45 73.93 71.19 70.99 73.52 73.39 73.52 68.50 68.67 -     -     75.37 -     ls
mlkd       76.63 75.35 72.19 71.89 74.11 77.08 75.18 70.57 71.04 -     -     78.44 -     mlkd
ttm        -     -     -     -     -     -     74.33 -     -     -     -     -     -     ttm
crd+wttm   -     -     -     -     -     -     74.71 -     -     -     -     -     -     ttm
wkd        -     -     -     -     -     76.53 -     -     -     -     -     -     76.72 wkd
srrl       -     -     -     -     -     75.39 -     -     -     -     -     -     -     simkd
semckd     -     -     -     -     -     76.23 -     -     -     -     -     -     -     simkd
simkd      -     -     -     -     -     78.08 -     -     -     -     -     -     -     simkd
"""
"""Top-1 in per cent."""


def published(pair: str, method: str) -> Published | None:
    """What a cell of the table says; None where nothing was published."""
    column = PAIRS.index(pair)
    cells = {}
    for name, *numbers, source in map(str.split, TABLE.strip().splitlines()[2:]):
        if numbers[column] != "-":
            cells[name] = float(numbers[column]), SOURCES[source]
    if method not in cells:
        return None
    student, source = cells[method]
    return Published(
        student=student,
        rule=source.rule,
        source=source.text,
        teacher=cells["teacher"][0],
        baseline=None if source.own_baseline else cells["baseline"][0],
    )


def model(name: str) -> Model:
    """A network for CIFAR-100."""
    return NAMED[name].clone(num_classes=100, mean=MEAN, std=STD)


def peak(name: str) -> float:
    """The first learning rate."""
    return 0.01 if name.startswith(("mobilenet", "shuffle")) else 0.05


def fit(name: str, scale: float, method: str = "kd") -> Fit:
    """The protocol, after what a method of two stages does before."""
    drops = tuple(scale * epoch for epoch in (150, 180, 210))
    schedule = Steps(peak=peak(name), epochs=drops, factor=0.1)
    first = first_phase(method, name, scale)
    frozen = PARAPHRASER if method == "ft" else ()
    return Fit(
        epochs=scale * (240.0 if first is None else 270.0),
        batch_size=64,
        optimizer=SGD(momentum=0.9, nesterov=False, weight_decay=5e-4, decay="all"),
        schedule=schedule,
        phases=() if first is None else (first, Phase(freeze=frozen, schedule=schedule)),
    )


def config(
    pair: Annotated[Literal[*PAIRS], "Teacher and student."] = "resnet32x4-resnet8x4",
    method: Annotated[Literal[*METHODS], "How the student learns from the teacher."] = "kd",
    length: Annotated[float, "Epochs of the protocol; all else is in proportion."] = 240.0,
) -> Experiment:
    """One cell."""
    teacher, student = pair.split("-")
    scale = length / 240.0
    return Experiment(
        name=f"cifar100-{pair}-{method}",
        data=Data(
            name="tfds:cifar100",
            train="train",
            validation="train[90%:]",
            test="test",
            augment=(PadCrop(padding=4), Flip()),
        ),
        teacher=Teacher(model=model(teacher), fit=fit(teacher, scale), checkpoint="latest"),
        student=Student(
            model=model(student),
            reuse_classifier=method == "simkd",
            fit=fit(student, scale, method),
            losses=objectives(teacher, student, scale)[method],
        ),
        published=published(pair, method) if scale == 1.0 else None,
    )
