"""A folder of JPEG files, scaled to 64x64: a small network teaches one of half its width.

kdjax distill configs/folder.py --data.name folder:DIR

DIR has `train/<class>/*.jpg` and `val/<class>/*.jpg`. A tenth of `train` is for validation, and
`val` is read once, at the end. With other classes than ten, say --teacher.model.num_classes.

Of 800 images of Imagenette for training and 300 for the test, with --teacher.fit.epochs 15
--student.fit.epochs 15, last checkpoint: teacher 44.7 %, baseline 42.3 %, student 44.7 %; each is
good to six points. No gain on so little data.
"""

from kdjax.data.augment import Flip, RandomResizedCrop
from kdjax.experiment import SGD, Cosine, Data, Derive, Experiment, Fit, Student, Teacher, Term
from kdjax.losses import CrossEntropy, SoftTarget
from kdjax.models import SmallCNN


def config() -> Experiment:
    """The experiment."""
    fit = Fit(
        epochs=30,
        batch_size=64,
        optimizer=SGD(momentum=0.9, weight_decay=5e-4),
        schedule=Cosine(peak=0.05, warmup_epochs=1),
    )
    model = SmallCNN(
        widths=(16, 32, 64, 128),
        hidden=128,
        mean=(0.462, 0.459, 0.434),
        std=(0.281, 0.277, 0.300),
    )
    return Experiment(
        name="folder",
        data=Data(
            name="folder:images",
            train="train[:90%]",
            validation="train[90%:]",
            test="validation",
            image_size=(64, 64),
            augment=(RandomResizedCrop(scale=(0.35, 1.0)), Flip()),
        ),
        teacher=Teacher(model=model, fit=fit),
        student=Student(
            derive=Derive(width=0.5),
            fit=fit,
            losses=(Term(CrossEntropy(), 0.1), Term(SoftTarget(temperature=4.0), 0.9)),
        ),
    )
