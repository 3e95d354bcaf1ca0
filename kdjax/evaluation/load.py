"""A trained network, from a run directory."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from kdjax.data.sources import DataInfo
from kdjax.experiment import UNKNOWN, Run
from kdjax.models import Model, infer
from kdjax.training.checkpoint import Checkpoints
from kdjax.training.items import digest
from kdjax.training.run_directory import RunDirectory
from kdjax.types import Outputs, Variables

Weights = Literal["raw", "ema"]


@dataclass(frozen=True)
class Loaded:
    """A network with its weights, and where they came from."""

    run: Run
    info: DataInfo
    directory: Path
    checkpoint: str
    """What was asked for: `best`, `latest` or a step."""
    step: int
    epoch: float
    weights: Weights
    variables: Variables

    @property
    def model(self) -> Model:
        """The network."""
        return self.run.model

    @cached_property
    def digest(self) -> str:
        """Of the weights."""
        return digest(self.variables)

    @cached_property
    def _forward(self) -> Any:
        return jax.jit(partial(infer, self.model))

    def outputs(self, images: np.ndarray | Array) -> Outputs:
        """`images`: `[n, H, W, C]`, uint8, or float32 in [0, 1]; normalised inside."""
        if images.ndim != 4 or tuple(images.shape[1:]) != self.info.shape:
            expected = ", ".join(map(str, self.info.shape))
            raise ValueError(f"images: shape {tuple(images.shape)}, expected [n, {expected}].")
        if images.dtype != np.uint8 and not jnp.issubdtype(images.dtype, jnp.floating):
            raise ValueError(f"images: {images.dtype}, expected uint8, or float32 in [0, 1].")
        # The call returns before it is done: the caller may fill its memory again meanwhile.
        own = images if isinstance(images, jax.Array) else np.array(images)
        return self._forward(self.variables, own)

    def logits(self, images: np.ndarray | Array) -> Float[Array, "n classes"]:
        """Unnormalised class scores."""
        return self.outputs(images).logits

    def probabilities(self, images: np.ndarray, batch_size: int = 512) -> np.ndarray:
        """Class probabilities of any number of images, in batches of one compiled size."""
        parts = []
        for start in range(0, len(images), batch_size):
            part = images[start : start + batch_size]
            padded = np.zeros((batch_size, *part.shape[1:]), part.dtype)
            padded[: len(part)] = part
            parts.append(np.asarray(jax.nn.softmax(self.logits(padded)))[: len(part)])
        return np.concatenate(parts)


def load(run: str | Path, checkpoint: str | int = "best", weights: Weights | None = None) -> Loaded:
    """A network from a run directory; `checkpoint` is `best`, `latest` or a step.

    `weights`: the raw ones or their moving average; by default the average where one was kept,
    since that is what validation saw. Raises ValueError if there is no such run or checkpoint.
    """
    directory = RunDirectory(Path(run))
    config, info = directory.read()
    averaged = config.fit.ema_decay is not None
    chosen: Weights = weights or ("ema" if averaged else "raw")
    checkpoints = Checkpoints(directory.checkpoints)
    step = checkpoints.find(str(checkpoint))
    return Loaded(
        run=config,
        info=info,
        directory=directory.path,
        checkpoint=str(checkpoint),
        step=step,
        epoch=float(checkpoints.meta(step)["epoch"]),
        weights=chosen,
        variables=checkpoints.variables(step, "student" if chosen == "raw" else "ema"),
    )


def load_finished(where: str, run: str | Path, checkpoint: str) -> Loaded:
    """A network from a finished run; `where` it was named begins the error if it is not."""
    network = load(run, checkpoint)
    if RunDirectory(network.directory).result() is None:
        raise ValueError(f"{where} is unfinished; run the command that started it again.")
    return network


def adapts(own: DataInfo, info: DataInfo) -> bool:
    """Whether a network that was imported without data can take the place of one for this data."""
    as_many_classes = len(own.classes) == len(info.classes)
    as_many_channels = own.shape[-1] == info.shape[-1]
    known = (own.name != UNKNOWN, info.name != UNKNOWN)
    return known == (False, True) and as_many_classes and as_many_channels


def as_teacher(run: str | Path, checkpoint: str, info: DataInfo) -> Loaded:
    """A finished run as a teacher for this data; ValueError unless it was made for it.

    An imported network, of whose data nothing is known but how many classes and channels it has,
    takes the data's image shape and class names.
    """
    where = f"teacher.run: {Path(run)}"
    teacher = load_finished(where, run, checkpoint)
    if adapts(teacher.info, info):
        return dataclasses.replace(teacher, info=info)
    if teacher.info.shape != info.shape:
        raise ValueError(f"{where} takes images {by(teacher.info.shape)}, not {by(info.shape)}.")
    if teacher.info.classes != info.classes:
        raise ValueError(
            f"{where} knows other classes: {few(teacher.info.classes)}, "
            f"but {info.name} has {few(info.classes)}."
        )
    return teacher


def by(shape: Sequence[int]) -> str:
    """`32x32x3`."""
    return "x".join(map(str, shape))


def few(names: Sequence[str]) -> str:
    """How many, and the first three."""
    return f"{len(names)} ({', '.join(names[:3])}{', …' if len(names) > 3 else ''})"
