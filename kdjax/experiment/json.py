"""Configs to JSON and back. Knows dataclasses, not experiments.

A choice among types carries the name of its `type`. Where one of them is the base of others, any
class derived from it may be chosen: one that is not listed is written as `module:Class` and
imported when it is read.
"""

import dataclasses
import functools
import json
import math
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

import cattrs
import flax.linen as nn
from cattrs.cols import list_structure_factory
from cattrs.gen import make_dict_structure_fn, make_dict_unstructure_fn, override

from kdjax.experiment.importing import class_named, name_of

T = TypeVar("T")

PRIMITIVES = (bool, int, float, str)

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
        raise ValueError(f"{source}: {'; '.join(problems)}") from None


def to_json(value: Any) -> str:
    """`to_dict`, as text."""
    return json.dumps(to_dict(value), indent=2) + "\n"


def from_json(text: str, cls: type[T], source: str = "config") -> T:
    """`from_dict` of text that may be damaged."""
    return from_dict(_parsed(text, source), cls, source)


def read_json(path: Path) -> Any:
    """ValueError that names the file if it is truncated."""
    return _parsed(path.read_text(), str(path))


def _parsed(text: str, source: str) -> Any:
    try:
        return json.loads(text)
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


@functools.cache
def _converter() -> cattrs.Converter:
    converter = cattrs.Converter(forbid_extra_keys=True)
    for primitive in PRIMITIVES:
        converter.register_structure_hook(primitive, _strict)
    converter.register_structure_hook_func(_is_primitive_union, _one_of_primitives)
    converter.register_unstructure_hook_factory(
        _is_module, lambda cls: make_dict_unstructure_fn(cls, converter, **_without_linen(cls))
    )
    converter.register_structure_hook_factory(
        _is_module, lambda cls: make_dict_structure_fn(cls, converter, **_without_linen(cls))
    )
    converter.register_structure_hook_factory(_is_tuple, _list_to_tuple(converter))
    converter.register_unstructure_hook_factory(is_number_or, _number_or_unstructure(converter))
    converter.register_structure_hook_factory(is_number_or, _number_or_structure(converter))
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
        kinds = get_args(cls)
        many = kinds[1:] == (Ellipsis,)
        as_list: Any = types.GenericAlias(list, kinds[:1])
        items = list_structure_factory(as_list, converter)

        def structure(value: Any, _: Any) -> Any:
            # A string would come out as its letters, and an object as its keys.
            if not isinstance(value, list | tuple):
                raise TypeError(f"{value!r} is not a list")
            if many:
                return tuple(items(value, as_list))
            if len(value) != len(kinds):
                raise TypeError(f"{value!r} has not {len(kinds)} values")
            return tuple(map(converter.structure, value, kinds))

        return structure

    return factory


def _is_primitive_union(cls: Any) -> bool:
    is_union = get_origin(cls) in (Union, types.UnionType)
    return is_union and set(_members(cls)) <= set(PRIMITIVES) and len(_members(cls)) > 1


def _one_of_primitives(value: Any, cls: Any) -> Any:
    """The value as it is: JSON keeps whole numbers, fractions, truths and words apart."""
    if type(value) not in get_args(cls):
        raise TypeError(
            f"{value!r} is none of {', '.join(kind.__name__ for kind in _members(cls))}"
        )
    return _strict(value, type(value))


def _is_module(cls: Any) -> bool:
    return isinstance(cls, type) and issubclass(cls, nn.Module)


def _without_linen(cls: type) -> dict[str, Any]:
    return {name: override(omit=True) for name in LINEN_FIELDS}


def is_number_or(cls: Any) -> bool:
    """A number, or something that computes one; or perhaps neither."""
    kinds = _members(cls) if get_origin(cls) in (Union, types.UnionType) else []
    return len(kinds) == 2 and float in kinds and any(map(dataclasses.is_dataclass, kinds))


def _number_or_unstructure(converter: cattrs.Converter) -> Callable[[Any], Callable[[Any], Any]]:
    def factory(cls: Any) -> Callable[[Any], Any]:
        return lambda value: converter.unstructure(value, type(value))

    return factory


def _number_or_structure(converter: cattrs.Converter) -> Callable[[Any], Callable[[Any, Any], Any]]:
    def factory(cls: Any) -> Callable[[Any, Any], Any]:
        (other,) = (kind for kind in _members(cls) if kind is not float)
        optional = type(None) in get_args(cls)

        def structure(value: Any, _: Any) -> Any:
            if value is None and optional:
                return None
            return converter.structure(value, other if isinstance(value, dict) else float)

        return structure

    return factory


def _members(cls: Any) -> list[type]:
    return [member for member in get_args(cls) if member is not type(None)]


def _is_choice(cls: Any) -> bool:
    is_union = get_origin(cls) in (Union, types.UnionType)
    return is_union and all(dataclasses.is_dataclass(member) for member in _members(cls))


def _choices(cls: Any) -> tuple[dict[str, type], type | None]:
    """The listed types by name, and the base of others, if it is listed, which stands for more."""
    members = _members(cls)
    base = next((b for b in members if any(issubclass(m, b) for m in members if m is not b)), None)
    return {member.__name__: member for member in members if member is not base}, base


def _tagged_unstructure(converter: cattrs.Converter) -> Callable[[Any], Callable[[Any], Any]]:
    def factory(cls: Any) -> Callable[[Any], Any]:
        listed, base = _choices(cls)

        def unstructure(value: Any) -> Any:
            if value is None:
                return None
            kind = type(value)
            if base is not None and kind not in listed.values():
                _check_own(value, kind, base)
            values = converter.unstructure(value, kind)
            if base is None or kind in listed.values():
                return {"type": kind.__name__, **values}
            name = name_of(kind, base)
            _check_fields(value, values, converter)
            return {"type": name, **values}

        return unstructure

    return factory


def _tagged_structure(converter: cattrs.Converter) -> Callable[[Any], Callable[[Any, Any], Any]]:
    def factory(cls: Any) -> Callable[[Any, Any], Any]:
        listed, base = _choices(cls)
        optional = type(None) in get_args(cls)

        def structure(value: Any, _: Any) -> Any:
            if value is None and optional:
                return None
            name = value.get("type") if isinstance(value, dict) else value
            if isinstance(value, dict) and name in listed:
                kind = listed[name]
            elif isinstance(value, dict) and base and isinstance(name, str) and ":" in name:
                kind = class_named(name, base)
            else:
                own = f", nor module:Class of a {base.__name__}" if base else ""
                raise ValueError(f"{name!r} is none of {', '.join(listed)}{own}")
            return converter.structure({k: v for k, v in value.items() if k != "type"}, kind)

        return structure

    return factory


def _check_own(value: Any, kind: type, base: type) -> None:
    """ValueError unless a value of a class that is not listed is one that has fields to write."""
    if not isinstance(value, base):
        raise ValueError(
            f"{value!r} is no {base.__name__}; give one of ours, or of a class derived from it."
        )
    if "__dataclass_fields__" not in vars(kind):
        raise ValueError(
            f"{kind.__name__} is no dataclass, so that its fields would be lost; write "
            "@dataclass(frozen=True, kw_only=True) above it."
        )


def _check_fields(value: Any, values: dict[str, Any], converter: cattrs.Converter) -> None:
    """ValueError for the first field of a user's class that would not come back from JSON."""
    hints = get_type_hints(type(value))
    for field, item in values.items():
        field_value = getattr(value, field)
        try:
            again = converter.structure(json.loads(json.dumps(item)), hints[field])
        except Exception:  # whatever JSON and cattrs cannot do with it
            again = None
        if type(again) is not type(field_value) or again != field_value:
            raise ValueError(
                f"{type(value).__name__}.{field}: {field_value!r} does not come back from JSON as "
                f"{hints[field]}; use numbers, strings or tuples of them, and say so in its type."
            )


def _explain(error: BaseException, type_: Any) -> str:
    if isinstance(error, cattrs.ForbiddenExtraKeysError):
        return f"unknown field {', '.join(sorted(error.extra_fields))}"
    if isinstance(error, KeyError):
        return "required field missing"
    is_config = isinstance(type_, type) and dataclasses.is_dataclass(type_)
    if is_config and isinstance(error, AttributeError | TypeError):
        return f"must be an object with the fields of {type_.__name__}"
    return str(error)
