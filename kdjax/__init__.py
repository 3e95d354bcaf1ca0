"""kdjax: train a big network, derive a small one, distil the one into the other."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from kdjax.evaluation.load import Loaded

__version__ = "0.1.0"


def load(run: str | Path, checkpoint: str | int = "best") -> Loaded:
    """A trained network from a run directory, with `.logits(images)`.

    `checkpoint` is `best`, `latest` or a step. `images` are `[n, H, W, C]`, uint8, or float32 in
    [0, 1]; the network normalises them itself.
    """
    from kdjax.evaluation.load import load

    return load(run, checkpoint)
