"""What a job leaves behind, and when it counts as done. Knows no stage and no order.

There is one rule: what is on disk counts if it was made from the same. A product holds fingerprints
of what it was made from; a training run, which is resumed and not made at once, has `config.json`
for that, and `result.json` at its end.
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kdjax.data.sources import DataInfo
from kdjax.evaluation.load import Loaded
from kdjax.experiment import Run
from kdjax.experiment.json import read_json, to_dict
from kdjax.training.processes import from_first
from kdjax.training.run_directory import RunDirectory, write_json

RECORD = "made_from"
"""Where in its JSON object a product says so."""

Make = Callable[[], dict[str, Any]]
"""The content of a product, which may lie beside it too, whole; it must survive JSON."""


@dataclass(frozen=True)
class Product:
    """A JSON file, and the fingerprints of all that its content depends on."""

    path: Path
    made_from: Mapping[str, str]


def kept(product: Product, make: Make) -> dict[str, Any]:
    """What is on disk, if it was made from the same; else what `make` returns, now on disk."""
    found = _found(product)
    return _written(product, make()) if found is None else found


def kept_by_all(product: Product, make: Make, *, writes: bool) -> dict[str, Any]:
    """`kept`, where all processes make it together: one of them reads and writes, for all."""
    found = from_first(_found(product) if writes else None)
    if found is not None:
        return found
    made = make()
    return _written(product, made) if writes else made


def is_trained(directory: RunDirectory, run: Run, info: DataInfo) -> bool:
    """Whether a run is finished; ValueError if another one lives there, or had another teacher."""
    directory.check(run, info)
    return is_finished(directory)


def is_finished(directory: RunDirectory) -> bool:
    """Whether the run that lives there is, whatever it is; the first process decides for all."""
    return from_first(directory.result() is not None)


def fingerprint(*values: Any) -> str:
    """SHA-256 of JSON values."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def fingerprint_of(network: Loaded) -> str:
    """Of a network: its weights, what is computed with them, and what results call it."""
    return fingerprint(
        network.directory.name,
        network.checkpoint,
        network.step,
        network.weights,
        network.digest,
        to_dict(network.run)["model"],
    )


def _found(product: Product) -> dict[str, Any] | None:
    if not product.path.is_file():
        return None
    content = read_json(product.path)
    return content if content.pop(RECORD, None) == product.made_from else None


def _written(product: Product, made: dict[str, Any]) -> dict[str, Any]:
    write_json(product.path, {**made, RECORD: dict(product.made_from)})
    return made
