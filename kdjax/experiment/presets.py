"""Presets: files with a function `config`, whose parameters are flags of their own."""

import argparse
import importlib.util
import inspect
import sys
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, get_args, get_origin, get_type_hints

from kdjax.checks import nearest
from kdjax.experiment.fields import Experiment
from kdjax.experiment.json import from_dict, read_json, to_dict

Config = Callable[..., Experiment]


def load_experiment(preset: str) -> Experiment:
    """The experiment of a preset file, or of the `experiment.json` of an earlier job."""
    experiment, _, _ = experiment_of(preset, [])
    return experiment


def experiment_of(preset: str, arguments: Sequence[str]) -> tuple[Experiment, list[str], str]:
    """The experiment, the arguments that are not the preset's own, and a text about those.

    ValueError if there is no such experiment, or none for these arguments.
    """
    path = Path(preset)
    if path.suffix == ".json":
        return from_dict(read_json(path), Experiment, preset), list(arguments), ""
    config = load_preset(path)
    try:
        own, rest = _own_arguments(config, arguments)
        experiment = config(**own)
        if not isinstance(experiment, Experiment):
            found = type(experiment).__name__
            raise ValueError(f"config() returned {found}, not an Experiment.")
        to_dict(experiment)  # what could not be recorded is refused before anything starts
    except ValueError as error:
        raise ValueError(f"preset {preset}: {error}") from error
    return experiment, rest, _about(config)


def load_preset(path: str | Path) -> Config:
    """The `config` function of a preset file; modules beside the file can be imported from now on.

    They come last on Python's path, so that none of them takes the place of a library.
    """
    path = Path(path)
    if not path.is_file():
        have = sorted(str(p) for p in path.parent.glob("*.py")) if path.parent.is_dir() else []
        hint = f"; there are {', '.join(have)}" if have else ""
        raise ValueError(f"preset {path} does not exist{hint}.")
    spec = importlib.util.spec_from_file_location(f"kdjax_preset_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise ValueError(f"preset {path} is not a Python file.")
    module = importlib.util.module_from_spec(spec)
    folder = str(path.resolve().parent)
    if folder not in sys.path:
        sys.path.append(folder)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise ValueError(f"preset {path} does not run: {type(error).__name__}: {error}") from error
    config = getattr(module, "config", None)
    if not inspect.isfunction(config):
        raise ValueError(f"preset {path} has no function config() that returns an Experiment.")
    return config


def _own_arguments(config: Config, arguments: Sequence[str]) -> tuple[dict[str, Any], list[str]]:
    """The parameters of `config` that are set, and the other arguments."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parameters = _parameters(config)
    for name in parameters:
        parser.add_argument(f"--{name}", default=argparse.SUPPRESS)
    chosen, rest = parser.parse_known_args(list(arguments))
    return {name: _read(name, parameters[name], text) for name, text in vars(chosen).items()}, rest


class Parameter(NamedTuple):
    """A parameter of a preset."""

    kind: Any
    """`str`, `int`, `float` or a `Literal` of choices."""
    default: Any
    note: str
    """What `Annotated` says of it."""

    @property
    def choices(self) -> dict[str, Any]:
        """The values there are, by what is written for them; empty: any."""
        if get_origin(self.kind) is not Literal:
            return {}
        return {str(choice): choice for choice in get_args(self.kind)}


def _parameters(config: Config) -> dict[str, Parameter]:
    """ValueError for a parameter that a flag cannot set."""
    hints = get_type_hints(config, include_extras=True)
    found = {}
    for name, parameter in inspect.signature(config).parameters.items():
        kind, *notes = (
            get_args(hints[name]) if _is_annotated(hints.get(name)) else [hints.get(name)]
        )
        found[name] = Parameter(kind, parameter.default, " ".join(map(str, notes)))
        if parameter.default is parameter.empty:
            raise ValueError(f"config({name}) has no default; give it one.")
        if not (found[name].choices or kind in (str, int, float)):
            raise ValueError(f"config({name}) must be a str, an int, a float or a Literal.")
    return found


def _is_annotated(hint: Any) -> bool:
    return get_origin(hint) is Annotated


def _read(name: str, parameter: Parameter, text: str) -> Any:
    """The value of a flag. ValueError if it is none of those there are."""
    choices = parameter.choices
    if choices and text not in choices:
        raise ValueError(f"--{name}: unknown {name} {text!r}; {nearest(text, choices)}")
    try:
        return choices[text] if choices else parameter.kind(text)
    except ValueError as error:
        raise ValueError(f"--{name}: {text!r} is not {parameter.kind.__name__}.") from error


def _about(config: Config) -> str:
    """The help of the parameters; empty if there are none."""
    parameters = _parameters(config)
    if not parameters:
        return ""
    lines = ["This preset's own arguments, applied before all others:"]
    for name, parameter in parameters.items():
        kind = "" if parameter.choices else f" {parameter.kind.__name__.upper()}"
        note = f"{parameter.note} (default: {parameter.default})".strip()
        lines += [f"--{name}{kind}", _indented(note), _indented(", ".join(parameter.choices))]
    return "\n".join(filter(None, lines))


def _indented(text: str) -> str:
    margin = " " * 6
    return textwrap.fill(
        text, 80, initial_indent=margin, subsequent_indent=margin, break_on_hyphens=False
    )
