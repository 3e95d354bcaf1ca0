"""The outlook on a whole job: one mapping of plain values, for JSON and for tables."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from kdjax.data.sources import DataInfo
from kdjax.evaluation.load import load
from kdjax.evaluation.of_run import check_fits, open_experiment_data
from kdjax.experiment import Experiment
from kdjax.experiment.rules import validate
from kdjax.experiment.runs import distilled
from kdjax.models import Model
from kdjax.models.summary import Shape
from kdjax.outlook.chips import Chip
from kdjax.outlook.estimate import STRETCH, Estimate, divides, estimate, hosts
from kdjax.outlook.workload import Workload, workloads

SCALES = tuple(2**i for i in range(11))
"""Numbers of chips."""
IMAGES = (50_000, 1_000_000, 10_000_000, 100_000_000, 1_000_000_000)
PUBLISHED = {
    "tfds:cifar10": 50_000,
    "tfds:cifar100": 50_000,
    "tfds:imagenet2012": 1_281_167,
}
"""Training images of data sets that need not be at hand."""


def outlook(
    experiment: Experiment,
    chip: Chip,
    chips: int,
    *,
    synthetic: Shape | None = None,
    images: int | None = None,
    price: float | None = None,
) -> dict[str, Any]:
    """The job at every scale. ValueError for what the user can mend; no device is touched."""
    teacher, shape, examples = subject(experiment, synthetic, images)
    works = workloads(experiment, teacher, shape, examples)
    role = next(iter(distilled(experiment)))
    at = _row(works, role, chip, chips, price)
    fitting = [n for n in SCALES if all(divides(work, n) for work in works.values())]
    sizes = {n: workloads(experiment, teacher, shape, n) for n in IMAGES if n >= _least(works)}
    return {
        "name": experiment.name,
        "role": role,
        "chip": dataclasses.asdict(chip),
        "price": price,
        "batch": works[role].batch,
        "images": examples,
        "shape": list(shape),
        "dtype": works[role].student.dtype,
        "by_chips": [_row(works, role, chip, n, price) for n in fitting],
        "by_images": [_row(sizes[n], role, chip, chips, price) for n in sizes],
        "at": at,
        "details": _details(works, role, chip, chips),
    }


def subject(
    experiment: Experiment, synthetic: Shape | None, images: int | None
) -> tuple[Model, Shape, int]:
    """The teacher, the shape of an image, and how many there are to train on."""
    validate(experiment)
    spec = experiment.teacher
    teacher = load(spec.run, spec.checkpoint).model if spec.run else spec.model
    if synthetic is None:
        try:
            info = open_experiment_data(experiment).info
        except ValueError as error:
            raise ValueError(
                f"{error} To plan without the data, give --synthetic HEIGHT WIDTH CHANNELS."
            ) from error
        return teacher, info.shape, _enough(experiment, images or info.sizes["train"])
    if min(synthetic) < 1:
        raise ValueError(f"--synthetic: {synthetic} is no height, width and channels.")
    classes = tuple(map(str, range(teacher.num_classes)))
    check_fits("teacher.model", teacher, DataInfo("synthetic", synthetic, classes, {}, ""))
    data = experiment.data
    known = PUBLISHED.get(data.name) if data.train == "train" else None
    if images is None and known is None:
        raise ValueError(
            f"--images: how many there are in {data.train} of {data.name} is not known without "
            "the data; say it."
        )
    return teacher, synthetic, _enough(experiment, images or known or 0)


def _enough(experiment: Experiment, images: int) -> int:
    batch = experiment.student.fit.batch_size
    if images < batch:
        raise ValueError(f"--images: {images} are fewer than the {batch} of student.fit.batch_size")
    return images


def _least(works: Mapping[str, Workload]) -> int:
    return max(work.batch for work in works.values())


def _row(
    works: Mapping[str, Workload], role: str, chip: Chip, chips: int, price: float | None
) -> dict[str, Any]:
    """The distillation's step, and the hours of all runs."""
    found = {name: estimate(work, chip, chips) for name, work in works.items()}
    main = found[role]
    hours = sum(each.hours() for each in found.values())
    work = main.work
    cached = estimate(work.without_teacher(), chip, chips) if work.answers else None
    return {
        "chips": chips,
        "hosts": hosts(chip, chips),
        "images": work.examples,
        "images_a_chip": work.batch // chips,
        "roof_seconds": main.step(1.0),
        "stretch_seconds": main.step(STRETCH),
        "step_seconds": main.step(),
        "cached_step_seconds": cached and cached.step(),
        "images_a_second": main.images_a_second,
        "bottleneck": main.bottleneck,
        "hours": hours,
        "chip_hours": hours * chips,
        "cost": None if price is None else hours * chips * price,
        "fits": all(each.fits for each in found.values()),
        "images_a_host": main.images_a_host,
        "bytes_a_host": main.images_a_host * work.pixels,
        "decode_cores": main.decode_cores,
        "host_cores": chip.cores,
        "set_bytes": work.examples * work.pixels,
        "permutation_bytes": 2 * 8 * work.examples,
        "answers": work.answers,
        "state_bytes": work.state,
    }


def _details(works: Mapping[str, Workload], role: str, chip: Chip, chips: int) -> dict[str, Any]:
    main = estimate(works[role], chip, chips)
    return {
        "seconds": {name: getattr(main, name) for name in PARTS},
        "memory": main.needs,
        "resident": main.work.resident,
        "checkpoint_seconds": main.checkpoint,
        "checkpoint_share": main.checkpoint_share,
        "runs": {name: _run(estimate(work, chip, chips)) for name, work in works.items()},
    }


PARTS = ("compute", "memory", "launches", "all_reduce", "batch_norm", "input")


def _run(found: Estimate) -> dict[str, Any]:
    return {
        "steps": found.work.steps,
        "step_seconds": found.step(),
        "hours": found.hours(),
        "parameters": found.work.parameters,
        "bottleneck": found.bottleneck,
        "bytes_a_chip": sum(found.needs.values()),
        "fits": found.fits,
    }
