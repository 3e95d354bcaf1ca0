"""Digits with parts of one's own: loss, optimizer, schedule, random view and metric.

kdjax distill examples/own_parts/preset.py
"""

from parts import Darken, HuberEmbedding, SignDescent, SuperclassAccuracy, Triangle

from kdjax.experiment import (
    SGD,
    BalancedAccuracy,
    Cosine,
    Data,
    Experiment,
    Fit,
    Student,
    Teacher,
    Term,
)
from kdjax.losses import CrossEntropy, SoftTarget
from kdjax.models import SmallCNN


def config() -> Experiment:
    """The experiment."""
    teacher = SmallCNN(widths=(16, 32), hidden=64, mean=(0.305,), std=(0.376,))
    return Experiment(
        name="own-parts",
        data=Data(name="digits", augment=(Darken(),)),
        teacher=Teacher(
            model=teacher,
            fit=Fit(epochs=20, optimizer=SGD(), schedule=Cosine(peak=0.1)),
        ),
        student=Student(
            model=teacher.clone(widths=(8, 16), hidden=32),
            fit=Fit(epochs=20, optimizer=SignDescent(), schedule=Triangle(peak=0.003)),
            losses=(
                Term(CrossEntropy(), 0.5),
                Term(SoftTarget(), 0.5),
                Term(HuberEmbedding(), 1.0),
            ),
        ),
        metrics=(SuperclassAccuracy(), BalancedAccuracy()),
    )
