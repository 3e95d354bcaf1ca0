"""Looking at a teacher before anything learns from it: a few forward passes on validation data."""

from collections.abc import Iterator

import numpy as np

from kdjax.data.sources import Arrays, Source
from kdjax.evaluation.doubts import accuracy, refuse, weakness
from kdjax.evaluation.evaluate import answers
from kdjax.evaluation.load import Loaded
from kdjax.models import Ensemble
from kdjax.training.parallel import Devices

IMAGES = 512
"""So many a teacher is looked at with: users wait, and 512 answers are sure to 2 points."""
OF_A_CLASS = 2
"""Or more, so many a class: their order is read off one half and tried on the other."""
LOW = 0.5
"""Accuracy below which imported weights are tried with other normalisations."""
BETTER = 0.1
"""By how much another normalisation must be more accurate to be the right one."""

Statistics = tuple[tuple[float, ...], tuple[float, ...]]
"""Mean and standard deviation of pixels in [0, 1]."""

IMAGENET: Statistics = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


class Probe:
    """Networks, asked about the same validation images."""

    def __init__(self, source: Source, classes: int, devices: Devices, batch_size: int) -> None:
        """All images of the split, or enough of them that are spread over it evenly."""
        count = min(len(source), max(IMAGES, OF_A_CLASS * classes))
        index = np.linspace(0, len(source) - 1, count).round().astype(int)
        self.images = Arrays(*source.read(index))
        self.devices, self.batch_size = devices, batch_size

    def accuracy(self, network: Loaded) -> float:
        """Share of right answers."""
        return accuracy(*self._ask(network))

    def doubts(self, teacher: Loaded) -> list[str]:
        """What is wrong with a teacher, and what to do; ValueError if it would teach nonsense."""
        logits, labels = self._ask(teacher)
        refuse(logits, labels, teacher.info.classes)
        found, right = weakness(logits, labels), accuracy(logits, labels)
        imported = teacher.step == 0  # what was trained here knows its own mean and std
        advice = self._other_statistics(teacher, right) if imported and right < LOW else ""
        if not found and not advice:
            return []
        what = found or f"the teacher classifies {right:.1%} of the validation images correctly"
        return [f"{what}; {advice or _general_advice(imported)}"]

    def _ask(
        self, network: Loaded, statistics: Statistics | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        model = network.model
        if statistics is not None:
            model = model.clone(mean=statistics[0], std=statistics[1])
        return answers(model, network.variables, self.images, self.devices, self.batch_size)

    def _other_statistics(self, teacher: Loaded, right: float) -> str:
        """The normalisation that the weights seem to expect; empty if there is none."""
        if isinstance(teacher.model, Ensemble):  # whose members each have their own
            return ""
        tried = [(accuracy(*self._ask(teacher, s)), s) for s in _statistics(self.images.images)]
        most, (mean, std) = max(tried)
        if most < right + BETTER:
            return ""
        return (
            f"with mean {_spaced(mean)} and std {_spaced(std)} it would be {most:.1%}, instead of "
            f"teacher.model.mean {_spaced(teacher.model.mean)} and teacher.model.std "
            f"{_spaced(teacher.model.std)}: import it again with --mean and --std."
        )


def _statistics(images: np.ndarray) -> Iterator[Statistics]:
    """What networks are usually trained with: [0, 1], [-1, 1], ImageNet's, and the data's own."""
    yield (0.0,), (1.0,)
    yield (0.5,), (0.5,)
    if images.shape[-1] == 3:
        yield IMAGENET
    pixels = images / 255.0
    mean, std = pixels.mean(axis=(0, 1, 2)), pixels.std(axis=(0, 1, 2))
    yield tuple(mean.round(3).tolist()), tuple(np.maximum(std, 1e-3).round(3).tolist())


def _general_advice(imported: bool) -> str:
    if imported:
        return (
            "its weights or its normalisation (teacher.model.mean and teacher.model.std) do not "
            "fit this data: import it again with other weights, --mean or --std."
        )
    return "train it longer, or otherwise (teacher.fit)."


def _spaced(values: tuple[float, ...]) -> str:
    return " ".join(f"{value:g}" for value in values)
