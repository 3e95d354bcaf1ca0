"""ResNet-34 teaches ResNet-18 on ImageNet, by the methods of the literature's table.

The teacher is torchvision's, imported once:

    kdjax weights import resnet34.pth --model resnet34 --num-classes 1000 --out runs/resnet34
    kdjax distill configs/imagenet.py --method dkd --teacher.run runs/resnet34

`--data.name` names ImageNet as TFDS prepared it with images of one size, 224x224; of the original
photographs no two need have the same. The protocol is mdistiller's: batches of 512, 100 epochs, a
learning rate of 0.2 that falls tenfold after 30, 60 and 90. All training images are trained on; the
validation split is a part of them, and ImageNet's validation images are the test. The student
alone is torchvision's ResNet-18 and is not trained again; `--baseline True` does.
"""

from typing import Annotated, Literal

from kdjax.data.augment import Flip, RandomResizedCrop
from kdjax.experiment import SGD, Data, Experiment, Fit, Published, Steps, Student, Teacher, Term
from kdjax.losses import CRD, DIST, DKD, AttentionTransfer, CrossEntropy, Ramp, ReviewKD, SoftTarget
from kdjax.models import NAMED

LABELS = Term(CrossEntropy())
REVIEW_TERM = Term(ReviewKD(before_relu="both"), 1.0, Ramp(epochs=1))
DKD_TERM = Term(DKD(beta=0.5, temperature=1.0), 1.0, Ramp(epochs=1))

CRD_PAPER = ("last", "Tian et al., 2020, arXiv:1910.10699")
REVIEW_PAPER = ("best", "Chen et al., 2021, arXiv:2104.09044")
DIST_PAPER = ("best", "Huang et al., 2022, arXiv:2205.10536, and the authors' code")
MDISTILLER = ("best", "Zhao et al., 2022, arXiv:2203.08679, and the authors' mdistiller")

RECIPES = {
    "kd": ((Term(CrossEntropy(), 0.5), Term(SoftTarget(temperature=1.0), 0.5)), 71.03, *MDISTILLER),
    "at": ((LABELS, Term(AttentionTransfer(), 1000.0)), 70.70, *CRD_PAPER),
    "crd": ((LABELS, Term(CRD(), 0.8)), 71.17, *CRD_PAPER),
    "reviewkd": ((LABELS, REVIEW_TERM), 71.61, *REVIEW_PAPER),
    "dist": ((LABELS, Term(DIST(temperature=1.0), 1.0)), 72.07, *DIST_PAPER),
    "dkd": ((LABELS, DKD_TERM), 71.70, *MDISTILLER),
}
"""The objective of each method, its top-1 in per cent, which epoch that is of, and the source."""


def config(
    method: Annotated[Literal[*RECIPES], "How the student learns from the teacher."] = "kd",
) -> Experiment:
    """One row of the table."""
    losses, top1, rule, source = RECIPES[method]
    fit = Fit(
        epochs=100.0,
        batch_size=512,
        optimizer=SGD(momentum=0.9, weight_decay=1e-4, decay="all"),
        schedule=Steps(peak=0.2, epochs=(30.0, 60.0, 90.0), factor=0.1),
    )
    return Experiment(
        name=f"imagenet-resnet34-resnet18-{method}",
        data=Data(
            name="tfds:imagenet2012",
            train="train",
            validation="train[99%:]",
            test="validation",
            augment=(RandomResizedCrop(), Flip()),
        ),
        teacher=Teacher(model=NAMED["resnet34"], fit=fit, checkpoint="latest"),
        student=Student(model=NAMED["resnet18"], fit=fit, losses=losses),
        baseline=False,
        published=Published(student=top1, rule=rule, source=source, teacher=73.31, baseline=69.76),
    )
