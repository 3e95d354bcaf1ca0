"""From a command line to a validated config: dotted overrides, models by name."""

import argparse
import ast
import dataclasses
import inspect
import itertools
import textwrap
from collections.abc import Sequence
from functools import partial
from typing import Any, TypeVar, get_args, get_type_hints

import flax.linen as nn
import tyro
from tyro import constructors

from kdjax.checks import nearest
from kdjax.commands import parsing
from kdjax.experiment import Experiment
from kdjax.experiment.json import LINEN_FIELDS, is_number_or
from kdjax.experiment.presets import experiment_of
from kdjax.experiment.rules import validate
from kdjax.models import NAMED, Ensemble, Model

T = TypeVar("T")
MODEL_FLAGS = ("teacher.model", "student.model")
"""Flags that take the name of a network instead of the fields of one."""
DATA_FIELDS = ("num_classes", "mean", "std")
"""Fields of a named network that follow the data, not the name."""

registry = constructors.ConstructorRegistry()


@registry.struct_rule
def _linen_rule(info: constructors.StructTypeInfo) -> constructors.StructConstructorSpec | None:
    """Show a Linen module's own fields, not those Flax adds to every module."""
    cls = info.type
    if not (isinstance(cls, type) and issubclass(cls, nn.Module)):
        return None
    hints = get_type_hints(cls)
    fields = [
        constructors.StructFieldSpec(
            name=field.name,
            type=_flag_type(hints[field.name], _default(info.default, field)),
            default=_default(info.default, field),
            helptext=partial(_field_docstring, cls, field.name),
        )
        for field in dataclasses.fields(cls)
        if field.name not in LINEN_FIELDS
    ]
    return constructors.StructConstructorSpec(instantiate=cls, fields=tuple(fields))


def _default(instance: Any, field: dataclasses.Field) -> Any:
    return getattr(instance, field.name) if isinstance(instance, nn.Module) else field.default


def _flag_type(hint: Any, default: Any) -> Any:
    """What a flag sets: of a number or something that computes one, the kind the preset has."""
    if not is_number_or(hint):
        return hint
    if dataclasses.is_dataclass(default):
        return type(default)
    return float | None if type(None) in get_args(hint) else float


def _field_docstring(cls: type, name: str) -> str | None:
    """The string below a field, in the class that declares it."""
    owner = next(base for base in cls.__mro__ if name in inspect.get_annotations(base))
    try:
        (tree,) = ast.parse(textwrap.dedent(inspect.getsource(owner))).body
    except (OSError, TypeError):  # a class whose source is not at hand
        return None
    assert isinstance(tree, ast.ClassDef)
    for pair in itertools.pairwise(tree.body):
        match pair:
            case (
                ast.AnnAssign(target=ast.Name(id=field)),
                ast.Expr(value=ast.Constant(value=str(text))),
            ) if field == name:
                return inspect.cleandoc(text)
    return None


def parse(
    cls: type[T],
    arguments: Sequence[str],
    program: str,
    default: T | None = None,
    description: str = "",
) -> T:
    """An instance of `cls` from flags, networks and losses among them."""
    with registry:
        return parsing.parse(cls, arguments, program, default, description)


def with_named_models(
    experiment: Experiment, arguments: Sequence[str]
) -> tuple[Experiment, list[str]]:
    """Apply `--teacher.model NAME` and `--student.model NAME`; the other arguments are left."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    for flag in MODEL_FLAGS:
        parser.add_argument(f"--{flag}", dest=flag)
    chosen, rest = parser.parse_known_args(list(arguments))
    for flag in MODEL_FLAGS:
        name = getattr(chosen, flag)
        if name is not None:
            experiment = _with_model(experiment, flag.split(".")[0], name)
    return experiment, rest


def _with_model(experiment: Experiment, role: str, name: str) -> Experiment:
    part = getattr(experiment, role)
    model: Model | None = None
    if role != "student" or name != "derive":
        follow = part.model or experiment.teacher.model
        if isinstance(follow, Ensemble):
            follow = follow.networks()[0]  # whose mean and std are all there is
        model = named_model(f"{role}.model", name).clone(
            **{f: getattr(follow, f) for f in DATA_FIELDS}
        )
    return dataclasses.replace(experiment, **{role: dataclasses.replace(part, model=model)})


def named_model(field: str, name: str) -> Model:
    """The network of that name; ValueError with the nearest names if there is none."""
    if name not in NAMED:
        raise ValueError(f"{field}: unknown model {name!r}; {nearest(name, NAMED)}")
    return NAMED[name]


def parse_with_preset(cls: type[T], arguments: Sequence[str], program: str) -> T:
    """`PRESET [--own value …] [--a.b value …]`: `cls` has a field `experiment`, and flags."""
    preset, *rest = arguments
    experiment, rest, about = experiment_of(preset, rest)
    experiment, rest = with_named_models(experiment, rest)
    values: dict[str, Any] = {"experiment": experiment}
    for field in dataclasses.fields(cls):  # type: ignore[arg-type]
        if field.name not in values and field.default is dataclasses.MISSING:
            values[field.name] = tyro.MISSING
    parsed = parse(cls, rest, f"{program} {preset}", default=cls(**values), description=about)
    validate(parsed.experiment)  # type: ignore[attr-defined]
    return parsed
