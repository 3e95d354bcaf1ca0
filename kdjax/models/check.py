"""What the fields of a network must obey. Knows of each family no more than its fields' names."""

import dataclasses
from typing import Any, get_args

from kdjax.checks import require, within
from kdjax.models import Ensemble, Model, ReusedClassifier

MAY_BE_ZERO = ("inner", "squeezed", "expansions", "pools")
"""Fields of networks whose zeros say that a layer is not there; all other counts start at one."""
MAY_BE_EMPTY = ("dense", "inner", "squeezed")
"""Fields of networks that say by being empty that layers are not there."""
LENGTHS = {"widths": 1, "strides": 1, "kernels": 0, "expansions": 0, "hard_swish": 0}
"""Fields of networks that hold a value for each stage, and how many more."""
RATES = ("dropout", "drop_path")
"""Fields of networks that say how often something is left out in training."""
STEM = ("for", "for the stem and one for")


def check_model(where: str, model: Model) -> None:
    """Raise ValueError for the first field of a network that cannot work."""
    if isinstance(model, ReusedClassifier):
        raise ValueError(
            f"{where}: a ReusedClassifier is made of a student and its teacher; name the student's "
            "network, and set student.reuse_classifier=True."
        )
    with within(where):
        _check_ends(model)
        model.check()
    if isinstance(model, Ensemble):
        for i, member in enumerate(model.members):
            check_model(f"{where}.members.{i}", member)
    elif type(model) in get_args(Model):  # a user's own says itself what its fields mean
        with within(where):
            _check_counts(model)
            _check_rates(model)
            _check_lengths(model)


def _check_ends(model: Model) -> None:
    """Classes and pixels, which every network has."""
    require("num_classes", model.num_classes, model.num_classes >= 2, "at least 2")
    mean, std = model.mean, model.std
    positive = all(s > 0 for s in std) and len(std) > 0
    require("std", std, positive, "positive, one value or one a channel")
    fits = len(mean) == len(std) or (len(mean) > 0 and 1 in (len(mean), len(std)))
    require("mean", mean, fits, f"one value or as many as the {len(std)} of std")


def _check_counts(model: Model) -> None:
    for f in dataclasses.fields(model):
        value = getattr(model, f.name)
        sizes = value if isinstance(value, tuple) else (value,)
        if all(type(size) is int for size in sizes):
            least = 0 if f.name in MAY_BE_ZERO else 1
            fine = min(sizes, default=least if f.name in MAY_BE_EMPTY else -1) >= least
            require(f.name, value, fine, f"at least {least}")


def _check_rates(model: Model) -> None:
    for name in RATES:
        rate: float = getattr(model, name, 0.0)
        require(name, rate, 0 <= rate < 1, "at least 0 and less than 1")


def _check_lengths(model: Model) -> None:
    blocks: tuple[int, ...] | None = getattr(model, "blocks", None)
    for name, more in LENGTHS.items() if blocks else ():
        values: tuple[Any, ...] | None = getattr(model, name, None)
        more = model.stem_widths if name == "widths" else more
        if blocks and values is not None:
            remedy = f"one value {STEM[more]} each of {len(blocks)} stages"
            require(name, values, len(values) == len(blocks) + more, remedy)
