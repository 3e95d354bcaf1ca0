"""What is wrong with a teacher, seen from its answers. Pure: arrays in, words out."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int

Logits = Float[np.ndarray, "n classes"]
Labels = Int[np.ndarray, " n"]

CONSTANT = 0.01
"""Probabilities that move by less than this from image to image say nothing."""
CLEVER = 0.1
"""Share of what guessing leaves wrong that a teacher must get right."""
INJECTIVE = 0.8
"""Share of the classes that must have an answer of their own for it to be a matter of order."""
EXPLAINED = 0.3
"""Least accuracy that another order of the classes must give to explain the answers."""


def accuracy(logits: Logits, labels: Labels) -> float:
    """Share of right answers."""
    return float(np.mean(logits.argmax(axis=-1) == labels))


def refuse(logits: Logits, labels: Labels, classes: Sequence[str]) -> None:
    """Raise ValueError for answers that would teach nonsense."""
    lost = int((~np.isfinite(logits).all(axis=-1)).sum())
    if lost:
        raise ValueError(
            f"teacher: its logits are not finite for {lost:,} of {len(labels):,} validation "
            "images; import it again, train it again, or set teacher.model.dtype to float32."
        )
    order = other_order(logits, labels)
    moved = {truth: answer for truth, answer in order.items() if truth != answer}
    if moved:
        truth, answer = next(iter(moved.items()))
        raise ValueError(
            f"teacher: its classes are in another order than those of the data: class {truth} of "
            f"the data ({classes[truth]}) is answered with {answer} ({classes[answer]}), and "
            f"{len(moved)} classes are moved in all. Bring the outputs of its classifier into the "
            "order of the data and import it again."
        )


def other_order(logits: Logits, labels: Labels) -> dict[int, int]:
    """By true class, the answer it is given, if another order of the classes explains them all.

    Empty if none does. The order is read off half of each class and tried on the other half: where
    a class has few examples, any answers would fit an order that was made from them.
    """
    answers = logits.argmax(axis=-1)
    read = np.argsort(labels, kind="stable")[::2]
    order = _usual_answers(answers[read], labels[read], logits.shape[-1])
    tried = np.isin(labels, list(order))
    tried[read] = False
    if not tried.any():
        return {}
    expected = np.array([order[int(label)] for label in labels[tried]])
    explained = float(np.mean(answers[tried] == expected))
    told_apart = len(set(order.values())) / len(order)
    fits = explained >= max(EXPLAINED, 2 * accuracy(logits, labels)) and told_apart >= INJECTIVE
    return order if fits and len(order) > 1 else {}


def weakness(logits: Logits, labels: Labels) -> str:
    """Why these answers are hardly worth learning; empty if they are."""
    count = f"{len(labels):,} validation images"
    if np.ptp(_softmax(logits), axis=0).max() < CONSTANT:
        return f"the teacher gives {count} nearly the same answer"
    guessed = float(np.bincount(labels).max() / len(labels))
    right = accuracy(logits, labels)
    if right < guessed + CLEVER * (1 - guessed):
        often = f"always naming the most frequent class would give {guessed:.1%}"
        return f"the teacher classifies {right:.1%} of {count} correctly, and {often}"
    return ""


def outdone(teacher: float, alone: float, count: int) -> list[str]:
    """What to do if the student alone is as accurate as its teacher; empty if it is not."""
    if alone < teacher:
        return []
    return [
        f"the teacher classifies {teacher:.1%} of {count:,} validation images correctly, and the "
        f"student alone {alone:.1%}: there is little to learn from it. Take a better teacher, "
        "train it longer, or choose a smaller student."
    ]


def _usual_answers(answers: Labels, labels: Labels, classes: int) -> dict[int, int]:
    """The most frequent answer to each class that occurs."""
    return {
        int(truth): int(np.bincount(answers[labels == truth], minlength=classes).argmax())
        for truth in np.unique(labels)
    }


def _softmax(logits: Logits) -> Logits:
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)
