"""A good teacher is patient and consistent (Beyer et al., 2022, arXiv:2106.05237).

No label is read: the student only matches what the teacher says of the same view, a random crop
mixed with another one, for very many epochs. In a minute on a CPU, and as in the paper:

    kdjax distill configs/patient.py --data digits
    kdjax distill configs/patient.py --teacher.run runs/resnet152

The paper's networks are BiT's, with group norm; here they are torchvision's ResNet-152, imported by
`kdjax weights import`, and a ResNet-50. `--data.name` names ImageNet prepared with images of one
size, 224x224. Fewer epochs, `--student.fit.epochs 300`, cost accuracy: patience is the point.
"""

from typing import Annotated, Literal

from kdjax.data.augment import Flip, Mixup, PadCrop, RandomResizedCrop
from kdjax.experiment import (
    SGD,
    AdamW,
    Cosine,
    Data,
    Derive,
    Experiment,
    Fit,
    Published,
    Student,
    Teacher,
    Term,
)
from kdjax.losses import SoftTarget
from kdjax.models import NAMED, SmallCNN

MATCH = (Term(SoftTarget(temperature=1.0)),)


def config(
    data: Annotated[Literal["imagenet", "digits"], "What is learnt from."] = "imagenet",
) -> Experiment:
    """The recipe for ImageNet, or a small one like it."""
    return imagenet() if data == "imagenet" else digits()


def imagenet() -> Experiment:
    """The paper's recipe; 5,000 steps of warm-up are 16 epochs."""
    images = 1_281_167 * 0.98
    fit = Fit(
        epochs=1200.0,
        batch_size=4096,
        # The authors' decay of 3e-4 a step is not multiplied by the peak of the learning rate.
        optimizer=AdamW(weight_decay=3e-4 / 0.03),
        schedule=Cosine(peak=0.03, warmup_epochs=round(5000 * 4096 / images, 2)),
        clip_norm=1.0,
    )
    return Experiment(
        name="patient-imagenet",
        data=Data(
            name="tfds:imagenet2012",
            train="train[:98%]",
            validation="train[99%:]",
            test="validation",
            augment=(RandomResizedCrop(), Flip(), Mixup()),
        ),
        teacher=Teacher(model=NAMED["resnet152"]),
        student=Student(model=NAMED["resnet50"], fit=fit, losses=MATCH),
        baseline=False,
        published=Published(
            student=82.8,
            rule="last",
            source="Beyer et al., 2022, arXiv:2106.05237; BiT-R152x2 teaches BiT-R50x1",
            teacher=83.0,
        ),
    )


def digits() -> Experiment:
    """A quarter-width SmallCNN learns digits from its teacher without a label.

    Of 360 test images, one run each: 91.4 % right after 120 epochs and 94.2 % after 480; trained
    alone on the labels of the same views 89.2 %, the teacher 96.9 %.
    """
    views = (RandomResizedCrop(scale=(0.5, 1.0)), PadCrop(padding=1), Mixup())
    fit = Fit(
        epochs=30.0,
        optimizer=SGD(momentum=0.9, weight_decay=5e-4),
        schedule=Cosine(peak=0.05, warmup_epochs=1),
    )
    patient = Fit(
        epochs=120.0,
        optimizer=AdamW(weight_decay=0.01),
        schedule=Cosine(peak=0.01, warmup_epochs=5),
        clip_norm=1.0,
        eval_every=10.0,
    )
    return Experiment(
        name="patient-digits",
        data=Data(name="digits", augment=views),
        teacher=Teacher(model=SmallCNN(mean=(0.305,), std=(0.376,)), fit=fit),
        student=Student(derive=Derive(width=0.25, inherit=False), fit=patient, losses=MATCH),
    )
