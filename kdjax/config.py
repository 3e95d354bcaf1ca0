"""Configs to JSON and back, presets from their files. Knows dataclasses, not experiments."""

import dataclasses
import functools
import importlib.util
import inspect
import json
import math
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, Union, get_args, get_origin

import cattrs
import flax.linen as nn
from cattrs.cols import list_structure_factory
from cattrs.gen import make_dict_structure_fn, make_dict_unstructure_fn, override

T = TypeVar("T")

LINEN_FIELDS = ("parent", "name")
"""What Flax adds to a module's own fields."""


def to_dict(value: Any) -> dict[str, Any]:
    """A config as plain JSON values; a choice among types carries its `type`."""
    return _converter().unstructure(value, type(value))


def from_dict(values: Any, cls: type[T], source: str = "config") -> T:
    """The config again. ValueError names every field that does not fit."""
    try:
        return _converter().structure(values, cls)
    except Exception as error:
        problems = cattrs.transform_error(
            error, path=cls.__name__, format_exception=lambda e, type_: _explain(e, type_ or cls)
        )
        raise ValueError(f"{source}: {'; '.join(problems)}") from error


def to_json(value: Any) -> str:
    """`to_dict`, as text."""
    return json.dumps(to_dict(value), indent=2) + "\n"


def from_json(text: str, cls: type[T], source: str = "config") -> T:
    """`from_dict` of text that may be damaged."""
    try:
        return from_dict(json.loads(text), cls, source)
    except json.JSONDecodeError as error:
        raise ValueError(f"{source} is not readable JSON: {error}") from error


def differences(old: Any, new: Any, path: str = "") -> list[str]:
    """Where two plain values differ, one line a field: `fit.epochs: 30 → 40`."""
    if isinstance(old, dict) and isinstance(new, dict):
        keys = sorted(old.keys() | new.keys())
        lines = [differences(old.get(k), new.get(k), f"{path}.{k}" if path else k) for k in keys]
        return [line for group in lines for line in group]
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        lines = [
            differences(a, b, f"{path}.{i}") for i, (a, b) in enumerate(zip(old, new, strict=True))
        ]
        return [line for group in lines for line in group]
    return [] if old == new else [f"{path}: {old!r} → {new!r}"]


def load_preset(path: str | Path) -> Callable[..., Any]:
    """The `config` function of a preset file."""
    path = Path(path)
    if not path.is_file():
        have = sorted(str(p) for p in path.parent.glob("*.py")) if path.parent.is_dir() else []
        hint = f"; there are {', '.join(have)}" if have else ""
        raise ValueError(f"preset {path} does not exist{hint}.")
    spec = importlib.util.spec_from_file_location(f"kdjax_preset_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise ValueError(f"preset {path} is not a Python file.")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise ValueError(f"preset {path} does not run: {type(error).__name__}: {error}") from error
    config = getattr(module, "config", None)
    if not inspect.isfunction(config):
        raise ValueError(f"preset {path} has no function config() that returns an Experiment.")
    return config


@functools.cache
def _converter() -> cattrs.Converter:
    converter = cattrs.Converter(forbid_extra_keys=True)
    for primitive in (bool, int, float, str):
        converter.register_structure_hook(primitive, _strict)
    converter.register_unstructure_hook_factory(
        _is_module, lambda cls: make_dict_unstructure_fn(cls, converter, **_without_linen(cls))
    )
    converter.register_structure_hook_factory(
        _is_module, lambda cls: make_dict_structure_fn(cls, converter, **_without_linen(cls))
    )
    converter.register_structure_hook_factory(_is_tuple, _list_to_tuple(converter))
    converter.register_unstructure_hook_factory(_is_choice, _tagged_unstructure(converter))
    converter.register_structure_hook_factory(_is_choice, _tagged_structure(converter))
    return converter


def _strict(value: Any, cls: type) -> Any:
    if cls is float and type(value) is int:
        return float(value)
    if type(value) is not cls:
        raise TypeError(f"{value!r} is not {cls.__name__}")
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{value!r} is not a finite number")
    return value


def _is_tuple(cls: Any) -> bool:
    return get_origin(cls) is tuple


def _list_to_tuple(converter: cattrs.Converter) -> Callable[[Any], Callable[[Any, Any], Any]]:
    def factory(cls: Any) -> Callable[[Any, Any], Any]:
        as_list: Any = types.GenericAlias(list, get_args(cls)[:1])
        items = list_structure_factory(as_list, converter)

        def structure(value: Any, _: Any) -> Any:
            # A string would come out as its letters, and an object as its keys.
            if not isinstance(value, list | tuple):
                raise TypeError(f"{value!r} is not a list")
            return tuple(items(value, as_list))

        return structure

    return factory


def _is_module(cls: Any) -> bool:
    return isinstance(cls, type) and issubclass(cls, nn.Module)


def _without_linen(cls: type) -> dict[str, Any]:
    return {name: override(omit=True) for name in LINEN_FIELDS}


def _members(cls: Any) -> list[type]:
    return [member for member in get_args(cls) if member is not type(None)]


def _is_choice(cls: Any) -> bool:
    is_union = get_origin(cls) in (Union, types.UnionType)
    return is_union and all(dataclasses.is_dataclass(member) for member in _members(cls))


def _tagged_unstructure(converter: cattrs.Converter) -> Callable[[Any], Callable[[Any], Any]]:
    def factory(cls: Any) -> Callable[[Any], Any]:
        def unstructure(value: Any) -> Any:
            if value is None:
                return None
            return {"type": type(value).__name__, **converter.unstructure(value, type(value))}

        return unstructure

    return factory


def _tagged_structure(converter: cattrs.Converter) -> Callable[[Any], Callable[[Any, Any], Any]]:
    def factory(cls: Any) -> Callable[[Any, Any], Any]:
        members = {member.__name__: member for member in _members(cls)}
        optional = type(None) in get_args(cls)

        def structure(value: Any, _: Any) -> Any:
            if value is None and optional:
                return None
            if not isinstance(value, dict) or value.get("type") not in members:
                name = value.get("type") if isinstance(value, dict) else value
                raise ValueError(f"{name!r} is none of {', '.join(members)}")
            rest = {key: item for key, item in value.items() if key != "type"}
            return converter.structure(rest, members[value["type"]])

        return structure

    return factory


def _explain(error: BaseException, type_: Any) -> str:
    if isinstance(error, cattrs.ForbiddenExtraKeysError):
        return f"unknown field {', '.join(sorted(error.extra_fields))}"
    if isinstance(error, KeyError):
        return "required field missing"
    is_config = isinstance(type_, type) and dataclasses.is_dataclass(type_)
    if is_config and isinstance(error, AttributeError | TypeError):
        return f"must be an object with the fields of {type_.__name__}"
    return str(error)
