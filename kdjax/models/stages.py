"""Which of a network's features are its stages, and which map its classifier reads the mean of."""

import math
import re

from jaxtyping import Array, Float

from kdjax.types import Outputs


def stages(outputs: Outputs) -> tuple[str, ...]:
    """The features named `stage1`, `stage2`, …; all, from large to small, if none is named so.

    The order of the mapping says nothing: JAX sorts the keys of whatever it looks into.
    """
    numbers = {name: re.fullmatch(r"stage(\d+)", name) for name in outputs.features}
    named = {name: int(match[1]) for name, match in numbers.items() if match}
    if named:
        return tuple(sorted(named, key=lambda name: named[name]))
    return tuple(sorted(outputs.features, key=lambda name: (-pixels(outputs, name), name)))


def pixels(outputs: Outputs, name: str) -> int:
    """Of a feature map."""
    return math.prod(outputs.features[name].shape[1:3])


def pooled_stage(outputs: Outputs) -> str | None:
    """The stage that the embedding is the mean of, as the network says.

    None where layers lie between the two, as in `SmallCNN` or MobileNets.
    """
    return next(iter(outputs.pooled), None)


def last_map(outputs: Outputs) -> Float[Array, "b h w c"]:
    """The map that the embedding is the mean of; where there is none, the embedding as a pixel."""
    name = pooled_stage(outputs)
    return outputs.embedding[:, None, None] if name is None else outputs.pooled[name]
