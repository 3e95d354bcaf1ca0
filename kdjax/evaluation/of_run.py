"""Evaluating what a run directory holds: which data, which teacher, which weights."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from kdjax.data.sources import DataInfo, DataSet
from kdjax.evaluation.evaluate import Evaluate
from kdjax.evaluation.load import Loaded, Weights, load
from kdjax.experiment import UNKNOWN, Data, Experiment
from kdjax.experiment.rules import check_unlabelled
from kdjax.experiment.runs import distilled, field_of
from kdjax.models import Ensemble, Model
from kdjax.training.loop import Teaching
from kdjax.training.parallel import Devices

VERIFIED_IMAGES = 64
"""Images an exported file is compared with Flax on."""


SPLITS = ("train", "validation", "test")


def open_data(data: Data, splits: Sequence[str] = SPLITS) -> DataSet:
    """The data set, described; its splits are read when they are needed."""
    if data.name == UNKNOWN:
        raise ValueError("the network was imported without data; say --data NAME.")
    return DataSet(
        data.name,
        data.directory,
        {split: getattr(data, split) for split in splits},
        image_size=data.image_size,
        grey=data.grey,
        broken=data.broken,
    )


def open_experiment_data(experiment: Experiment) -> DataSet:
    """The data set of an experiment; ValueError if its models do not fit it."""
    dataset = open_data(experiment.data)
    if not dataset.info.labelled:
        check_unlabelled(experiment)
    if experiment.teacher.run is None:
        check_fits("teacher.model", experiment.teacher.model, dataset.info)
    for role, student in distilled(experiment).items():
        if student.model is not None:
            check_fits(f"{field_of(role)}.model", student.model, dataset.info)
    return dataset


def evaluate_run(
    run: Path,
    *,
    checkpoint: str = "best",
    split: str = "test",
    weights: Weights | None = None,
    batch_size: int = 512,
    data: Data | None = None,
) -> dict[str, Any]:
    """Metrics of one checkpoint on one split, beside the teacher it was distilled from.

    `data` stands in for the run's own; it must have as many classes and channels.
    """
    network = load(run, checkpoint, weights)
    dataset = _own_data(network) if data is None else open_data(data, (split,))
    if data is not None:
        check_stands_in(network, dataset.info)
    if split == "train" and not dataset.info.labelled:
        raise ValueError(
            f"--split train: the training images of {dataset.info.name} have no labels."
        )
    source, devices = dataset.open(split), Devices()
    evaluate = Evaluate(
        network.model, source, devices, batch_size, _own_teacher(network), network.run.metrics
    )
    return {**provenance(network, split), **evaluate(network.variables)}


def provenance(network: Loaded, split: str) -> dict[str, Any]:
    """Which weights a set of metrics belongs to."""
    return {
        "run": network.directory.name,
        "checkpoint": network.checkpoint,
        "step": network.step,
        "epoch": network.epoch,
        "weights": network.weights,
        "digest": network.digest,
        "split": split,
    }


def verification_images(network: Loaded) -> np.ndarray:
    """Test images to compare an exported file with Flax on; noise where no data is known."""
    if network.info.name == UNKNOWN:
        shape = (VERIFIED_IMAGES, *network.info.shape)
        return np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    source = _own_data(network).open("test")
    images, _ = source.read(np.arange(min(VERIFIED_IMAGES, len(source))))
    return images


def _own_data(network: Loaded) -> DataSet:
    dataset = open_data(network.run.data)
    found, expected = dataset.info, network.info
    if (found.shape, found.classes) != (expected.shape, expected.classes):
        raise ValueError(f"{found.name} has changed since {network.directory} was trained on it.")
    return dataset


def _own_teacher(network: Loaded) -> Teaching | None:
    reference = network.run.teacher
    if reference is None:
        return None
    teacher = load(network.directory / reference.run, reference.step)
    if teacher.digest != reference.digest:
        raise ValueError(
            f"{teacher.directory} is no longer the teacher {network.directory} was distilled from: "
            "its weights differ."
        )
    return Teaching(teacher.model, teacher.variables)


def check_stands_in(network: Loaded, info: DataInfo) -> None:
    """Raise ValueError unless other data than its own can be shown to the network."""
    check_fits(str(network.directory), network.model, info)
    takes, has = network.info.shape[-1], info.shape[-1]
    if takes != has:
        raise ValueError(
            f"--data: the images of {info.name} have {has} channel(s), but {network.directory} "
            f"takes {takes}; choose another data set."
        )


def check_fits(field: str, model: Model, info: DataInfo) -> None:
    """Raise ValueError unless the network has the data's classes and channels."""
    if model.num_classes != len(info.classes):
        raise ValueError(
            f"{field}.num_classes: {model.num_classes}, but {info.name} has {len(info.classes)} "
            f"classes; set it to {len(info.classes)}."
        )
    statistics: Mapping[str, tuple[float, ...]] = {"mean": model.mean, "std": model.std}
    for name, values in statistics.items():
        if len(values) not in (1, info.shape[-1]):
            raise ValueError(
                f"{field}.{name}: {len(values)} values, but the images of {info.name} have "
                f"{info.shape[-1]} channel(s); give one value, or one a channel."
            )
    if isinstance(model, Ensemble):
        for i, member in enumerate(model.members):
            check_fits(f"{field}.members.{i}", member, info)
