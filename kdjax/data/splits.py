"""Which examples a split expression such as `train[:90%]` means, for data of any kind."""

from collections.abc import Mapping
from typing import NamedTuple

import tensorflow_datasets as tfds


class Piece(NamedTuple):
    """A run of examples of one stored split."""

    split: str
    start: int
    stop: int


def pieces(expression: str, sizes: Mapping[str, int], field: str, name: str) -> list[Piece]:
    """The pieces of an expression in TFDS's notation, by TFDS's own reading of it.

    ValueError that names the field and what there is, if there is no such split or nothing in it.
    """
    known = {
        split: tfds.core.SplitInfo(name=split, shard_lengths=[size], num_bytes=0)
        for split, size in sizes.items()
    }
    try:
        found = tfds.core.ReadInstruction.from_spec(expression).to_absolute(known)
    except (KeyError, ValueError, RuntimeError) as error:  # whatever TFDS cannot read
        have = ", ".join(sizes)
        raise ValueError(
            f"{field}: {expression!r} is no split of {name}; it has {have}, "
            "and slices of them such as train[:90%]."
        ) from error
    ours = [
        Piece(p.splitname, p.from_ or 0, sizes[p.splitname] if p.to is None else p.to)
        for p in found
    ]
    if not any(piece.stop > piece.start for piece in ours):
        raise ValueError(f"{field}: {expression!r} of {name} is empty.")
    return ours
