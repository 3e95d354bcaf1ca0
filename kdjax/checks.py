"""How a rule is said: field, value, remedy. Knows no field."""

import difflib
from collections.abc import Collection, Iterator
from contextlib import contextmanager


def require(field: str, value: object, holds: bool, remedy: str) -> None:
    """Raise ValueError unless the rule holds: `padding: -1 cannot work; it must be >= 0.`"""
    if not holds:
        raise ValueError(f"{field}: {value!r} cannot work; it must be {remedy}.")


@contextmanager
def within(where: str) -> Iterator[None]:
    """Errors of a part, which names its own fields, say where it is."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{where}.{error}") from error


def nearest(name: str, names: Collection[str]) -> str:
    """What was probably meant, or all there is."""
    close = difflib.get_close_matches(name, names, n=3)
    return f"did you mean {' or '.join(close)}?" if close else f"there are {', '.join(names)}."
