"""How a PyTorch network is built and tapped, for comparison with ours; needs torch to run."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tests.torch_parity.inputs import MEAN, STD, draw, images


@dataclass(frozen=True)
class Reference:
    """A published PyTorch network."""

    build: Callable[[int], Any]
    """Number of classes to a `torch.nn.Module`."""
    taps: Mapping[str, str] = field(default_factory=dict)
    """Our feature's name to the sub-module whose output it is."""
    size: int = 32
    """Height and width of the images compared on."""
    channels_last: bool = False
    """Whether the tapped maps are `[n, H, W, C]` already."""
    to_map: Callable[[np.ndarray], np.ndarray] | None = None
    """From a tapped output to our `[n, H, W, C]`, where it is no map (tokens, `[n, t, C]`)."""


def run(reference: Reference, classes: int) -> tuple[dict[str, Any], np.ndarray, dict[str, Any]]:
    """Its state dictionary (filled by `draw`), logits and tapped maps in our layout."""
    import torch

    network = reference.build(classes).eval()
    state = {k: v for k, v in network.state_dict().items() if v.dtype == torch.float32}
    filled = {k: draw(k, tuple(v.shape)) for k, v in state.items()}
    network.load_state_dict({k: torch.from_numpy(v) for k, v in filled.items()}, strict=False)
    seen: dict[str, np.ndarray] = {}

    def tap(name: str) -> Callable[..., None]:
        def note(module: Any, inputs: Any, output: Any) -> None:
            # RepDistiller's stages return what they put out and, next to it, the same before ReLU.
            value = (output[0] if isinstance(output, tuple) else output).detach().numpy()
            if reference.to_map is not None:
                value = reference.to_map(value)
            elif value.ndim == 4 and not reference.channels_last:
                value = value.transpose(0, 2, 3, 1)
            seen[name] = value

        return note

    for name, path in reference.taps.items():
        network.get_submodule(path).register_forward_hook(tap(name))
    pixels = (images(reference.size).astype(np.float32) / 255 - np.float32(MEAN)) / np.float32(STD)
    with torch.no_grad():
        logits = network(torch.from_numpy(pixels.transpose(0, 3, 1, 2).copy())).numpy()
    return filled, logits, seen
