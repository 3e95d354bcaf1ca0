"""A network as a file that needs neither kdjax nor Flax to run.

`model.stablehlo` is the serialised `jax.export` of `f(weights, images)` for any batch size, lowered
for CPU, CUDA and TPU, with normalisation inside; `weights.safetensors` holds the weights, and
`card.json` says what goes in, what comes out and how good it is.
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import export as jax_export
from jaxtyping import Array
from safetensors.numpy import load_file, save_file

from kdjax import __version__
from kdjax.drafts import drafted
from kdjax.evaluation.load import Loaded
from kdjax.models import infer
from kdjax.types import Variables

PLATFORMS = ("cpu", "cuda", "tpu")
TOLERANCE = 1e-4
"""Largest difference to Flax, relative to the largest logit, that counts as rounding."""

Classifier = Callable[[np.ndarray], np.ndarray]
"""uint8 images `[n, H, W, C]` to float32 logits `[n, classes]`."""


def export(
    network: Loaded, directory: Path, images: np.ndarray, metrics: Mapping[str, Any]
) -> dict[str, Any]:
    """Write the files, load them again, compare with Flax on real `images`; the card.

    The directory appears only when everything in it was verified; an older export is replaced.
    Raises ValueError if the loaded file answers differently.
    """
    weights = _flat(network.variables)
    with drafted(directory) as draft:
        draft.mkdir()
        (draft / "model.stablehlo").write_bytes(_serialise(network, list(weights)))
        save_file(weights, draft / "weights.safetensors")
        difference = _verify(network, _classifier(draft, list(weights)), images)
        size = sum(path.stat().st_size for path in draft.iterdir())
        card = _card(network, list(weights), size) | {
            "metrics": dict(metrics),
            "max_difference": difference,
            "verified_images": len(images),
        }
        (draft / "card.json").write_text(json.dumps(card, indent=2) + "\n")
    return card


def load_exported(directory: str | Path) -> Classifier:
    """The exported network as a function; reads nothing but the three files."""
    directory = Path(directory)
    try:
        card = json.loads((directory / "card.json").read_text())
        return _classifier(directory, card["arguments"])
    except (OSError, json.JSONDecodeError, KeyError) as error:
        raise ValueError(f"{directory} holds no readable export: {error}") from error


def _classifier(directory: Path, arguments: list[str]) -> Classifier:
    stored = load_file(directory / "weights.safetensors")
    weights = [jnp.asarray(stored[name]) for name in arguments]
    exported = jax_export.deserialize(bytearray((directory / "model.stablehlo").read_bytes()))
    call = jax.jit(exported.call)
    return lambda images: np.asarray(call(weights, jnp.asarray(images)))


def _serialise(network: Loaded, names: list[str]) -> bytes:
    model, info = network.model, network.info

    def forward(weights: list[Array], images: Array) -> Array:
        variables = _nested(dict(zip(names, weights, strict=True)))
        return infer(model, variables, images).logits

    flat = _flat(network.variables)
    arguments = [jax.ShapeDtypeStruct(flat[name].shape, flat[name].dtype) for name in names]
    (batch,) = jax_export.symbolic_shape("batch")
    images = jax.ShapeDtypeStruct((batch, *info.shape), jnp.uint8)
    exported = jax_export.export(jax.jit(forward), platforms=PLATFORMS)(arguments, images)
    return bytes(exported.serialize())


def _verify(network: Loaded, classifier: Classifier, images: np.ndarray) -> float:
    """The largest difference to Flax, relative to the largest logit, on two batch sizes."""
    gaps = []
    for batch in (images, images[:1]):
        expected = np.asarray(network.logits(batch))
        gaps.append(np.abs(classifier(batch) - expected).max() / max(1.0, np.abs(expected).max()))
    worst = float(np.max(gaps))  # Python's max() loses NaN
    if not worst <= TOLERANCE:
        raise ValueError(
            f"export: the exported file differs from the network by {worst:.2g} of the largest "
            f"logit on {len(images)} images (allowed {TOLERANCE:g}); nothing was written."
        )
    return worst


def _card(network: Loaded, arguments: list[str], size: int) -> dict[str, Any]:
    """What a reader of the files must know."""
    return {
        "format": "stablehlo",
        "kdjax": __version__,
        "jax": jax.__version__,
        "model": type(network.model).__name__,
        "run": network.directory.name,
        "checkpoint": network.checkpoint,
        "step": network.step,
        "weights": network.weights,
        "digest": network.digest,
        "data": network.info.name,
        "classes": list(network.info.classes),
        "input": {"dtype": "uint8", "shape": ["batch", *network.info.shape]},
        "output": {"dtype": "float32", "shape": ["batch", len(network.info.classes)]},
        "platforms": list(PLATFORMS),
        "arguments": arguments,
        "bytes": size,
    }


def _flat(variables: Variables) -> dict[str, np.ndarray]:
    leaves, _ = jax.tree_util.tree_flatten_with_path(dict(variables))
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): np.ascontiguousarray(leaf)
        for path, leaf in leaves
    }


def _nested(flat: Mapping[str, Any]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for name, leaf in flat.items():
        *parents, last = name.split("/")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[last] = leaf
    return tree
