"""Classes of others by the name `module:Class`, under which another process finds them again.

Only Python's ordinary path is searched, never a place that a file names, so that reading the
config of a run runs no code that lies beside it.
"""

import importlib
import operator
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


def class_named(name: str, base: type) -> type:
    """The class `module:Class`; ValueError unless it can be imported and derives from `base`."""
    module, _, path = name.partition(":")
    try:
        found: Any = importlib.import_module(module)
    except Exception as error:  # a module raises whatever it likes
        root = module.split(".")[0]
        absent = isinstance(error, ModuleNotFoundError) and error.name == root
        remedy = f"put the folder that holds {root} on PYTHONPATH" if absent else "repair it"
        what = f"{type(error).__name__}: {error}"
        raise ValueError(f"{name!r} cannot be imported ({what}); {remedy}") from error
    try:
        found = operator.attrgetter(path)(found)
    except AttributeError as error:
        where = getattr(found, "__file__", None) or module
        raise ValueError(f"{name!r}: {where} has no {path}; correct the name") from error
    if not isinstance(found, type) or not issubclass(found, base) or found is base:
        raise ValueError(f"{name!r} is no {base.__name__}; name a class derived from it")
    return found


def name_of(kind: type, base: type) -> str:
    """How a class is found again; ValueError if another process could not find it."""
    name = f"{kind.__module__}:{kind.__qualname__}"
    try:
        again = None if kind.__module__ == "__main__" else class_named(name, base)
    except ValueError:
        again = None
    if again is not kind:
        raise ValueError(
            f"{kind.__name__} cannot be imported by later commands from where it is defined; "
            "define it at the top of a module of its own, such as one beside the preset."
        )
    return name


@contextmanager
def written_by_others(kind: type) -> Iterator[None]:
    """Within it, an error in a class that is not ours becomes a ValueError that says where."""
    try:
        yield
    except Exception as error:
        file = getattr(sys.modules.get(kind.__module__), "__file__", None)
        lines = [f.lineno for f in traceback.extract_tb(error.__traceback__) if f.filename == file]
        if isinstance(error, ValueError) or not lines or kind.__module__.startswith("kdjax."):
            raise
        text = next(iter(str(error).strip().splitlines()), "")
        where = f"{Path(str(file)).name}, line {lines[-1]}"
        raise ValueError(f"{kind.__name__}: {type(error).__name__}: {text} ({where})") from error
