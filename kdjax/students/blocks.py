"""Which of its teacher's arrays each array of a student comes from: by name, block by block.

Blocks are known by their names, `stage1_block0_…`; must not know channels.
"""

import re
from collections.abc import Mapping
from typing import Any

from kdjax.models.base import evenly_spaced
from kdjax.students.channels import Path
from kdjax.students.derive import FRESH

BLOCK = re.compile(r"((?:(?:member\d+|network)/)*stage\d+)_block(\d+)(?=[_/]|$)")
"""The stage and the number of a block, at the top of a network or of one within another."""


def counterparts(theirs: Mapping[Path, Any], ours: Mapping[Path, Any]) -> dict[Path, Path]:
    """The teacher's array that each array of the student comes from, where it has one."""
    blocks = _block_names(_stages(theirs), _stages(ours))
    sources = {}
    for path in ours:
        collection, layer = path[0], "/".join(path[1:])
        found = BLOCK.match(layer)
        if found:
            layer = blocks[found[0]] + layer[found.end() :]
        if (source := (collection, *layer.split("/"))) in theirs:
            sources[path] = source
    return sources


def _stages(paths: Mapping[Path, Any]) -> dict[str, int]:
    """Blocks of each stage."""
    counts: dict[str, int] = {}
    for _, *layers in paths:
        if found := BLOCK.match("/".join(layers)):
            counts[found[1]] = max(counts.get(found[1], 0), int(found[2]) + 1)
    return counts


def _block_names(theirs: Mapping[str, int], ours: Mapping[str, int]) -> dict[str, str]:
    """The block of the teacher that each block of the student comes from."""
    if len(ours) != len(theirs):
        raise ValueError(
            f"student: {len(ours)} stages, but its teacher has {len(theirs)}; give it as many, "
            f"{FRESH}"
        )
    chosen = {}
    for stage, new in ours.items():
        old = theirs[stage]
        if new > old:
            raise ValueError(
                f"student: {new} blocks in {stage}, but its teacher has {old}; give it at most as "
                f"many, {FRESH}"
            )
        for j, source in enumerate(evenly_spaced(old, new)):
            chosen[f"{stage}_block{j}"] = f"{stage}_block{source}"
    return chosen
