"""Evaluating what a run directory holds: which data, which teacher, which weights."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from kdjax.data.sources import DataSet
from kdjax.evaluation.evaluate import make_evaluate
from kdjax.evaluation.load import Loaded, Weights, load
from kdjax.experiment import Data, Experiment
from kdjax.models import Model
from kdjax.training.loop import Teaching
from kdjax.training.parallel import Devices

VERIFIED_IMAGES = 64
"""Real images an exported file is compared with Flax on."""


def open_data(data: Data) -> DataSet:
    """The data set, described; its splits are read when they are needed."""
    splits = {"train": data.train, "validation": data.validation, "test": data.test}
    return DataSet(data.name, data.directory, splits)


def open_experiment_data(experiment: Experiment) -> DataSet:
    """The data set of an experiment; ValueError if its models do not fit it."""
    dataset = open_data(experiment.data)
    if experiment.teacher.run is None:
        _check_fits("teacher.model", experiment.teacher.model, dataset)
    if experiment.student.model is not None:
        _check_fits("student.model", experiment.student.model, dataset)
    return dataset


def evaluate_run(
    run: Path,
    *,
    checkpoint: str = "best",
    split: str = "test",
    weights: Weights | None = None,
    batch_size: int = 512,
) -> dict[str, Any]:
    """Metrics of one checkpoint on one split, beside the teacher it was distilled from."""
    network = load(run, checkpoint, weights)
    dataset = _own_data(network)
    source, devices = dataset.open(split), Devices()
    evaluate = make_evaluate(network.model, source, devices, batch_size, _own_teacher(network))
    return {**origin(network, split), **evaluate(network.variables)}


def origin(network: Loaded, split: str) -> dict[str, Any]:
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
    """Test images to compare an exported file with Flax on."""
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


def _check_fits(field: str, model: Model, dataset: DataSet) -> None:
    info = dataset.info
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
