"""Distillation on images without labels: what can be done, and what is refused by name."""

import dataclasses

import numpy as np
import pytest

from kdjax.evaluation.of_run import evaluate_run
from kdjax.experiment import Data, Derive, Student, Teacher
from kdjax.experiment.objective import Term
from kdjax.experiment.rules import check_unlabelled
from kdjax.jobs.distill import distill, train
from kdjax.losses import DKD, CrossEntropy, SoftTarget
from tests.support import TINY, tiny_fit

SOFT = (Term(SoftTarget(temperature=4.0)),)


@pytest.fixture
def without(tiny):
    """An experiment that needs no labels, its teacher being trained already."""
    experiment = tiny()
    return dataclasses.replace(
        experiment,
        baseline=False,
        teacher=Teacher(run="runs/teacher"),
        student=dataclasses.replace(experiment.student, losses=SOFT),
    )


def test_what_reads_no_labels_is_fine(without):
    check_unlabelled(without)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"data": Data(sampling="class")}, r"data.sampling: 'class' draws .* to instance"),
        ({"baseline": True}, r"baseline: .* set baseline to False"),
        ({"teacher": Teacher(model=TINY)},
         r"teacher.losses.0 \(CrossEntropy\): .* name a trained one by teacher.run"),
        ({"student": Student(losses=(Term(DKD()), *SOFT, Term(CrossEntropy())))},
         r"student.losses.0 \(DKD\), student.losses.2 \(CrossEntropy\): .* remove them"),
        ({"assistants": (Student(),)}, r"assistants.0.losses.0 \(CrossEntropy\): read labels"),
        ({"student": Student(losses=SOFT, derive=Derive(importance="taylor"))},
         r"student.derive.importance: 'taylor' .* l1 or bn_scale"),
    ],
)  # fmt: skip
def test_what_reads_them_is_named(without, change, message):
    with pytest.raises(ValueError, match=message):
        check_unlabelled(dataclasses.replace(without, **change))


def test_a_student_learns_from_images_alone(digits, tiny, tmp_path):
    train(tiny(epochs=2), tmp_path / "labelled")
    content = {"classes": np.array(digits.info.classes)}
    for split in digits.info.sizes:
        part = digits.open(split)
        content[f"{split}_images"], content[f"{split}_labels"] = part.images, part.labels
    del content["train_labels"]
    np.savez(tmp_path / "alone.npz", **content)
    experiment = tiny()
    experiment = dataclasses.replace(
        experiment,
        baseline=False,
        data=dataclasses.replace(experiment.data, name="npz:alone.npz", directory=str(tmp_path)),
        teacher=Teacher(run=str(tmp_path / "labelled" / "teacher")),
        student=Student(fit=tiny_fit(epochs=4), losses=SOFT),
    )
    with pytest.raises(ValueError, match=r"student.losses.0 \(CrossEntropy\)"):
        distill(
            dataclasses.replace(experiment, student=Student(fit=tiny_fit())),
            tmp_path / "refused",
            "kdjax distill",
        )
    summary = distill(experiment, tmp_path / "job", "kdjax distill")
    assert summary["models"]["student"]["best"]["top1"] > 0.2
    with pytest.raises(ValueError, match=r"--split train: .* have no labels"):
        evaluate_run(tmp_path / "job" / "student", split="train")
