"""Where a student and its teacher differ, example by example."""

import base64
import io
from typing import Any

import numpy as np
from PIL import Image

from kdjax.data.sources import Source
from kdjax.evaluation.load import Loaded

EXAMPLES = 24
"""Disagreements kept as pictures."""
BATCH = 512
"""Examples looked at together."""


def analyse(student: Loaded, teacher: Loaded, source: Source) -> dict[str, Any]:
    """Confusion matrices (rows: truth), agreement matrix (rows: teacher), and disagreements.

    The disagreements shown are those in which the two are most confident.
    """
    classes = len(student.info.classes)
    confusion = {"teacher": _square(classes), "student": _square(classes)}
    agreement = _square(classes)
    disagreements: list[dict[str, Any]] = []
    for start in range(0, len(source), BATCH):
        index = np.arange(start, min(start + BATCH, len(source)))
        images, labels = source.read(index)
        p_s, p_t = student.probabilities(images, BATCH), teacher.probabilities(images, BATCH)
        ours, theirs = p_s.argmax(axis=-1), p_t.argmax(axis=-1)
        np.add.at(confusion["teacher"], (labels, theirs), 1)
        np.add.at(confusion["student"], (labels, ours), 1)
        np.add.at(agreement, (theirs, ours), 1)
        for i in np.flatnonzero(ours != theirs):
            disagreements.append(
                {
                    "index": int(index[i]),
                    "label": int(labels[i]),
                    "teacher": int(theirs[i]),
                    "student": int(ours[i]),
                    "teacher_probability": float(p_t[i].max()),
                    "student_probability": float(p_s[i].max()),
                    "image": images[i],
                }
            )
        disagreements.sort(key=_confidence, reverse=True)
        del disagreements[EXAMPLES:]
    for example in disagreements:
        example["image"] = _png(example["image"])
    return {
        "checkpoint": student.checkpoint,
        "confusion": {name: matrix.tolist() for name, matrix in confusion.items()},
        "agreement_matrix": agreement.tolist(),
        "disagreements": disagreements,
    }


def _square(size: int) -> np.ndarray:
    return np.zeros((size, size), np.int64)


def _confidence(example: dict[str, Any]) -> float:
    return float(example["teacher_probability"] * example["student_probability"])


def _png(image: np.ndarray) -> str:
    buffer = io.BytesIO()
    Image.fromarray(image.squeeze(-1) if image.shape[-1] == 1 else image).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()
