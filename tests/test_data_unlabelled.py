"""Distillation on images without labels: what can be done, and what is refused by name."""

import dataclasses
import io

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from kdjax.data.sources import DataSet
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


@pytest.fixture(scope="module")
def of_tfds(tmp_path_factory):
    """A set of three classes that TFDS prepared; -1 is how it says that there is no label."""
    labels = {"train": [0, 1, 2, 1], "more": [-1] * 5, "some": [0, 1, 2, 1, 0, -1], "test": [2, 1]}
    file = io.BytesIO()
    Image.new("L", (4, 4)).save(file, "PNG")
    png = file.getvalue()
    with tfds.core.registered.skip_registration():

        class Partly(tfds.core.GeneratorBasedBuilder):
            VERSION = tfds.core.Version("1.0.0")

            def _info(self):
                features = {
                    "image": tfds.features.Image(shape=(4, 4, 1)),
                    "label": tfds.features.ClassLabel(num_classes=3),
                }
                return tfds.core.DatasetInfo(
                    builder=self,
                    features=tfds.features.FeaturesDict(features),
                    supervised_keys=("image", "label"),
                )

            def _split_generators(self, manager):
                return {split: self._generate_examples(x) for split, x in labels.items()}

            def _generate_examples(self, labels):
                for i, label in enumerate(labels):
                    yield i, {"image": png, "label": label}

    directory = tmp_path_factory.mktemp("partly")
    Partly(data_dir=directory, file_format="array_record").download_and_prepare()
    return lambda **splits: DataSet("tfds:partly", str(directory), splits)


def test_a_split_of_tfds_without_labels_is_known_as_one(of_tfds):
    assert of_tfds(train="train", validation="test").info.labelled
    data = of_tfds(train="more", validation="test")
    assert not data.info.labelled
    assert set(data.open("train").labels) == {-1}
    with pytest.raises(ValueError, match=r"data.validation: the images of 'more' have no labels"):
        of_tfds(train="train", validation="more")


def test_an_example_of_a_labelled_split_without_a_label_is_named(of_tfds):
    data = of_tfds(train="some", validation="test")
    with pytest.raises(
        ValueError, match=r"record \d of tfds:partly some.*: -1 is none of 3 classes"
    ):
        data.open("train").read(np.arange(6))
