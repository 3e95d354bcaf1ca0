"""Augmentation on the device: pure functions of an image and its key, and of its neighbour.

The key is derived from (seed, view number, example index), so a view does not depend on the number
of devices, on the batch an example falls into, or on where a run was resumed.
"""

from collections.abc import Sequence

import jax
from jaxtyping import Array

from kdjax.data.augment.base import Transform as Transform
from kdjax.data.augment.colour import ColorJitter as ColorJitter
from kdjax.data.augment.geometry import Cutout as Cutout
from kdjax.data.augment.geometry import Flip as Flip
from kdjax.data.augment.geometry import PadCrop as PadCrop
from kdjax.data.augment.geometry import RandomErasing as RandomErasing
from kdjax.data.augment.geometry import RandomResizedCrop as RandomResizedCrop
from kdjax.data.augment.mixing import CutMix as CutMix
from kdjax.data.augment.mixing import Mixup as Mixup
from kdjax.data.augment.mixing import MixupOrCutMix as MixupOrCutMix
from kdjax.data.augment.policies import AutoAugment as AutoAugment
from kdjax.data.augment.policies import RandAugment as RandAugment
from kdjax.data.augment.policies import TrivialAugment as TrivialAugment
from kdjax.data.augment.three import ThreeAugment as ThreeAugment
from kdjax.types import Batch

Augmentation = (
    PadCrop
    | Flip
    | RandomResizedCrop
    | RandAugment
    | TrivialAugment
    | AutoAugment
    | ThreeAugment
    | ColorJitter
    | Cutout
    | RandomErasing
    | Mixup
    | CutMix
    | MixupOrCutMix
    | Transform
)
"""Every random view; the last stands for those that are not ours."""

VIEWS, TEACHER_VIEWS = 1, 3
"""Streams of the seed that views are drawn from; initial weights and losses use others."""


def augment(
    transforms: Sequence[Augmentation],
    seed: Array | int,
    batch: Batch,
    stream: int = VIEWS,
    views: int = 1,
) -> Batch:
    """The batch with every image seen through its own random view.

    `batch` is what one device holds of a global batch, in which `views` of each example follow each
    other; mixing needs the axis AXIS.
    """
    if not transforms:
        return batch

    def key_of(index: Array, view: Array) -> Array:
        key = jax.random.fold_in(jax.random.key(seed), stream)
        return jax.random.fold_in(jax.random.fold_in(key, view), index)

    keys = jax.vmap(key_of)(batch.index, batch.view)
    for i, transform in enumerate(transforms):
        batch = transform.apply(jax.vmap(jax.random.fold_in, (0, None))(keys, i), batch, views)
    return batch


def mixing_among(transforms: Sequence[Augmentation]) -> str | None:
    """The name of the first that mixes images."""
    return next((type(t).__name__ for t in transforms if t.mixes), None)
