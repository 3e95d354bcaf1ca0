"""A smaller network of the teacher's family: from one configuration to another.

Must not know weights, nor any one family: every network says itself how it shrinks.
"""

from kdjax.models import Model


def derive(teacher: Model, *, width: float = 1.0, depth: float = 1.0) -> Model:
    """The teacher with `width` of its channels and `depth` of each stage's blocks.

    Both are shares in (0, 1]. At least one channel and one block a stage remain; every other field
    is the teacher's. ValueError for any other share.
    """
    for name, value in (("width", width), ("depth", depth)):
        if not 0 < value <= 1:
            raise ValueError(f"{name}: {value!r} cannot work; give the share to keep, in (0, 1].")
    return teacher.scaled(width, depth)
