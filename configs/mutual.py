"""Two small networks learn handwritten digits, each from the labels and from the other.

kdjax train configs/mutual.py
kdjax ensemble split runs/mutual/teacher --member 0 --out runs/first
"""

from kdjax.data.augment import PadCrop
from kdjax.experiment import SGD, Cosine, Data, Experiment, Fit, Teacher, Term
from kdjax.losses import DML
from kdjax.models import Ensemble, SmallCNN


def config() -> Experiment:
    """The experiment; what is trained together stands where a teacher does."""
    one = SmallCNN(widths=(4, 8), hidden=64, mean=(0.305,), std=(0.376,))
    return Experiment(
        name="mutual",
        data=Data(name="digits", augment=(PadCrop(padding=1),)),
        teacher=Teacher(
            model=Ensemble(members=(one, one)),
            fit=Fit(
                epochs=30,
                batch_size=128,
                optimizer=SGD(momentum=0.9, weight_decay=5e-4),
                schedule=Cosine(peak=0.05, warmup_epochs=1),
            ),
            losses=(Term(DML()),),
        ),
    )
