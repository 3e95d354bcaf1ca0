"""Digits with networks of one's own: `PlainNet` teaches, and its student is derived from it.

kdjax distill examples/own_models/preset.py
"""

from networks import PlainNet

from kdjax.experiment import SGD, Cosine, Data, Derive, Experiment, Fit, Student, Teacher


def config() -> Experiment:
    """The experiment."""
    fit = Fit(epochs=20, batch_size=128, optimizer=SGD(), schedule=Cosine(peak=0.1))
    return Experiment(
        name="own",
        data=Data(name="digits"),
        teacher=Teacher(model=PlainNet(mean=(0.305,), std=(0.376,)), fit=fit),
        student=Student(derive=Derive(width=0.5, depth=0.5), fit=fit),
    )
