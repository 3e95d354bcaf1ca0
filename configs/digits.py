"""A quarter-width SmallCNN learns handwritten digits from its teacher, in a minute on a CPU.

kdjax distill configs/digits.py
"""

from kdjax.data.augment import PadCrop
from kdjax.experiment import SGD, Cosine, Data, Derive, Experiment, Fit, Student, Teacher, Term
from kdjax.losses import CrossEntropy, SoftTarget
from kdjax.models import SmallCNN


def config() -> Experiment:
    """The experiment."""
    fit = Fit(
        epochs=30,
        batch_size=128,
        optimizer=SGD(momentum=0.9, weight_decay=5e-4),
        schedule=Cosine(peak=0.05, warmup_epochs=1),
    )
    return Experiment(
        name="digits",
        data=Data(name="digits", augment=(PadCrop(padding=1),)),
        teacher=Teacher(model=SmallCNN(mean=(0.305,), std=(0.376,)), fit=fit),
        student=Student(
            derive=Derive(width=0.25),
            fit=fit,
            losses=(Term(CrossEntropy(), 0.1), Term(SoftTarget(temperature=4.0), 0.9)),
        ),
    )
