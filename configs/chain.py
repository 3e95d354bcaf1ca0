"""Knowledge handed on from network to network, on handwritten digits.

A teacher assistant stands between a teacher and a student that is much smaller (Mirzadeh et al.,
2020, arXiv:1902.03393); born-again networks are as large as their teacher, generation after
generation (Furlanello et al., 2018, arXiv:1805.04770):

    kdjax distill configs/chain.py
    kdjax distill configs/chain.py --way direct
    kdjax distill configs/chain.py --way born_again
"""

from typing import Annotated, Literal

from kdjax.data.augment import PadCrop
from kdjax.experiment import SGD, Cosine, Data, Derive, Experiment, Fit, Student, Teacher
from kdjax.models import SmallCNN


def config(
    way: Annotated[
        Literal["assistant", "direct", "born_again"], "Who stands in between."
    ] = "assistant",
) -> Experiment:
    """Widths are shares of the network before, which teaches; all start from fresh weights."""
    widths = {"assistant": (0.5, 0.25), "direct": (0.125,), "born_again": (1.0, 1.0)}[way]
    fit = Fit(
        epochs=30,
        batch_size=128,
        optimizer=SGD(momentum=0.9, weight_decay=5e-4),
        schedule=Cosine(peak=0.05, warmup_epochs=1),
    )
    *assistants, student = (
        Student(derive=Derive(width=width, inherit=False), fit=fit) for width in widths
    )
    return Experiment(
        name=f"chain-{way}",
        data=Data(name="digits", augment=(PadCrop(padding=1),)),
        teacher=Teacher(model=SmallCNN(mean=(0.305,), std=(0.376,)), fit=fit),
        assistants=tuple(assistants),
        student=student,
    )
