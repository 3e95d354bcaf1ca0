"""A LeNet-like network of 32 and 64 channels teaches one of a quarter of its width.

kdjax data prepare fashion_mnist --from DIR
kdjax distill configs/fashion_mnist.py

With --teacher.fit.epochs 3 --student.fit.epochs 3, test top-1: teacher 90.46 %, baseline 89.41 %,
student 89.43 %. No gain in so few epochs.
"""

from kdjax.data.augment import Flip
from kdjax.experiment import SGD, Cosine, Data, Derive, Experiment, Fit, Student, Teacher, Term
from kdjax.losses import CrossEntropy, SoftTarget
from kdjax.models import SmallCNN


def config() -> Experiment:
    """The experiment."""
    fit = Fit(
        epochs=10,
        batch_size=256,
        optimizer=SGD(momentum=0.9, weight_decay=5e-4),
        schedule=Cosine(peak=0.1, warmup_epochs=0.5),
    )
    model = SmallCNN(widths=(32, 64), hidden=256, mean=(0.286,), std=(0.353,))
    return Experiment(
        name="fashion-mnist",
        data=Data(
            name="tfds:fashion_mnist",
            train="train[:90%]",
            validation="train[90%:]",
            test="test",
            augment=(Flip(),),
        ),
        teacher=Teacher(model=model, fit=fit),
        student=Student(
            derive=Derive(width=0.25),
            fit=fit,
            losses=(Term(CrossEntropy(), 0.1), Term(SoftTarget(temperature=4.0), 0.9)),
        ),
    )
