"""timm's DeiT."""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from tests.torch_parity.reference import Reference

TAPS = {"stem": "pos_drop", **{f"stage{i}": f"blocks.{3 * i - 1}" for i in (1, 2, 3, 4)}}
HEADS = {"class_head": "head", "distillation_head": "head_dist"}


def _build(name: str) -> Callable[[int], Any]:
    def build(classes: int) -> Any:
        import timm

        return timm.create_model(name, num_classes=classes)

    return build


def _to_map(extra: int, value: np.ndarray) -> np.ndarray:
    """Patch tokens without the `extra` ones before them; a head's logits as a map of one pixel."""
    if value.ndim == 2:
        return value[:, None, None]
    side = int((value.shape[1] - extra) ** 0.5)
    return value[:, extra:].reshape(len(value), side, side, -1)


REFERENCES: dict[str, Reference] = {}
for _size in ("tiny", "small", "base"):
    for _suffix, _taps, _extra in (("", TAPS, 1), ("_distilled", TAPS | HEADS, 2)):
        REFERENCES[f"deit_{_size}{_suffix}"] = Reference(
            _build(f"deit_{_size}{_suffix}_patch16_224"),
            _taps,
            224,
            to_map=partial(_to_map, _extra),
        )
