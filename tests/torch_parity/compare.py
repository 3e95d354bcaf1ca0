"""Compare our networks with PyTorch's, and store what PyTorch answers for tests without it.

python -m tests.torch_parity.compare [NAME …]      # needs torch, torchvision, timm
"""

import importlib
import json
import pkgutil
import sys
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np

from kdjax.models import NAMED, infer
from kdjax.students.torch_weights import from_torch, to_torch
from tests.torch_parity import references
from tests.torch_parity.inputs import CLASSES, MEAN, STD, images, sample
from tests.torch_parity.reference import Reference, run

EXPECTATIONS = Path(__file__).parent / "expectations.json"


def all_references() -> dict[str, Reference]:
    """Those of every module in `references`."""
    found: dict[str, Reference] = {}
    for module in pkgutil.iter_modules(references.__path__):
        found |= importlib.import_module(f"{references.__name__}.{module.name}").REFERENCES
    return found


def relative(ours: Any, theirs: np.ndarray) -> float:
    """The largest difference, over the largest value."""
    return float(np.abs(np.asarray(ours) - theirs).max() / np.abs(theirs).max())


def compare(name: str, reference: Reference) -> dict[str, Any]:
    """Errors of one network, and what PyTorch answered."""
    model = NAMED[name].clone(num_classes=CLASSES, mean=MEAN, std=STD)
    shape = (reference.size, reference.size, 3)
    state, logits, maps = run(reference, CLASSES)
    variables = from_torch(model, state, shape)
    back = to_torch(model, variables, shape)
    assert back.keys() == state.keys(), back.keys() ^ state.keys()
    for key, value in state.items():
        np.testing.assert_array_equal(back[key], value, err_msg=key)
    ours = jax.jit(partial(infer, model))(variables, images(reference.size))
    assert set(maps) <= set(ours.features), (set(maps), set(ours.features))
    errors = {key: relative(ours.features[key], value) for key, value in maps.items()}
    return {
        "size": reference.size,
        "arrays": len(state),
        "logits": logits.tolist(),
        "features": {key: sample(value) for key, value in maps.items()},
        "errors": {"logits": relative(ours.logits, logits), **errors},
    }


def rounded(value: Any) -> Any:
    """All numbers to seven digits, which is what float32 holds."""
    if isinstance(value, float):
        return float(f"{value:.7g}")
    if isinstance(value, list):
        return [rounded(item) for item in value]
    return {k: rounded(v) for k, v in value.items()} if isinstance(value, dict) else value


def main(names: list[str]) -> None:
    """Print a line a network, and store what was seen."""
    known = all_references()
    stored = json.loads(EXPECTATIONS.read_text()) if EXPECTATIONS.is_file() else {}
    for name in names or known:
        stored[name] = found = compare(name, known[name])
        errors = "  ".join(f"{key} {error:.1e}" for key, error in found["errors"].items())
        print(f"{name:<24} {found['arrays']:>4} arrays  {errors}", flush=True)
    EXPECTATIONS.write_text(json.dumps(rounded(stored), indent=1) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
