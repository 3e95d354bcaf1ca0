"""What views of timm and torchvision are like, stored for tests without them.

python -m tests.torch_parity.augment      # needs torch, torchvision, timm; half a minute
"""

import itertools
import json
import random
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np

STORED = Path(__file__).parent / "augment.json"
DRAWS = 20_000

ERASING: dict[str, dict[str, Any]] = {
    "square": {"shape": (32, 32), "probability": 0.5},
    "low": {"shape": (24, 40), "probability": 0.9, "scale": (0.1, 0.2), "ratio": (1.5, 3.0)},
    "often too large": {
        "shape": (40, 16),
        "probability": 1.0,
        "scale": (0.55, 1.0),
        "ratio": (0.5, 2.0),
    },
}
"""Images and rectangles; a ratio is height over width."""
MIXING: dict[str, dict[str, float]] = {
    "deit": {
        "mixup_alpha": 0.8,
        "cutmix_alpha": 1.0,
        "probability": 1.0,
        "switch_probability": 0.5,
    },
    "other": {
        "mixup_alpha": 2.0,
        "cutmix_alpha": 0.6,
        "probability": 0.7,
        "switch_probability": 0.2,
    },
}
POLICIES = ("cifar10", "imagenet")
MIXED_SHAPE = (12, 10)


def moments(values: np.ndarray) -> list[float]:
    """Mean and standard deviation."""
    return [float(values.mean()), float(values.std())]


def erased(holes: np.ndarray) -> dict[str, Any]:
    """What rectangles are like: `holes` is True in them, one a row of `[n, H, W]`."""
    shape = np.array(holes.shape[1:])
    some = holes[holes.any(axis=(1, 2))]
    lines = [some.any(axis=2), some.any(axis=1)]
    first = np.stack([line.argmax(axis=1) for line in lines], axis=1)
    size = np.stack([line.sum(axis=1) for line in lines], axis=1)
    assert (size.prod(axis=1) == some.sum(axis=(1, 2))).all(), "rectangles"
    return {
        "often": len(some) / len(holes),
        "area": moments(size.prod(axis=1) / shape.prod()),
        "log ratio": moments(np.log(size[:, 0] / size[:, 1])),
        "row": moments(first[:, 0] / shape[0]),
        "column": moments(first[:, 1] / shape[1]),
        "at the end": float((first + size == shape).any(axis=1).mean()),
    }


def mixed(weights: np.ndarray) -> dict[str, Any]:
    """What mixtures are like: of each pixel of `[n, H, W]`, the part that is the image's own."""
    share, flat = weights.mean(axis=(1, 2)), weights.reshape(len(weights), -1)
    whole, cut = (flat == 1).all(axis=1), np.isin(flat, (0, 1)).all(axis=1)
    return {
        "whole": float(whole.mean()),
        "blended": float((~cut).mean()),
        "share of blends": moments(share[~cut]),
        "share of cuts": moments(share[cut & ~whole]),
        "cuts of a third at most": float((share[cut & ~whole] <= 1 / 3).mean()),
        "cuts of two thirds at most": float((share[cut & ~whole] <= 2 / 3).mean()),
    }


def picture() -> np.ndarray:
    """Uint8 `[24, 20, 3]`, of few levels and little contrast, so that every operation does much.

    Of its range `AutoContrast` is exact in Pillow too.
    """
    rng = np.random.default_rng(5)
    y, x = np.mgrid[:24, :20]
    waves = [np.sin(y / (3 + c)) * np.cos(x / (4 + c)) for c in range(3)]
    noise = rng.integers(0, 8, (24, 20, 3))
    return (np.round(108 + 75 * np.stack(waves, axis=-1)) // 8 * 8 + noise).astype(np.uint8)


def erasing_of_timm(shape: tuple[int, int], probability: float, **ranges: Any) -> dict[str, Any]:
    """By its own code, which fills with the constant 0."""
    import torch
    from timm.data.random_erasing import RandomErasing

    keys = {"scale": ("min_area", "max_area"), "ratio": ("min_aspect", "max_aspect")}
    fields = {k: v for name, pair in ranges.items() for k, v in zip(keys[name], pair, strict=True)}
    erase = RandomErasing(probability, **fields, device="cpu")
    return erased(np.stack([erase(torch.ones(1, *shape))[0].numpy() == 0 for _ in range(DRAWS)]))


def mixing_of_timm(fields: dict[str, float]) -> dict[str, Any]:
    """By its own code, for each example; images of ones are mixed with images of zeros."""
    import torch
    from timm.data.mixup import Mixup

    mix = Mixup(
        mixup_alpha=fields["mixup_alpha"],
        cutmix_alpha=fields["cutmix_alpha"],
        prob=fields["probability"],
        switch_prob=fields["switch_probability"],
        mode="elem",
        num_classes=2,
    )
    images = torch.cat([torch.ones(DRAWS, 1, *MIXED_SHAPE), torch.zeros(DRAWS, 1, *MIXED_SHAPE)])
    seen, _ = mix(images, torch.zeros(2 * DRAWS, dtype=torch.long))
    return mixed(seen[:DRAWS, 0].numpy())


def policy_of_torchvision(name: str) -> dict[str, Any]:
    """Its table, and a checksum of each pair of operations in each direction."""
    import torch
    from PIL import Image
    from torchvision.transforms import AutoAugment, AutoAugmentPolicy

    class Exact(AutoAugment):
        """Magnitudes as they are meant: in single precision 0.6 falls short of itself."""

        def _augmentation_space(self, *args: Any) -> dict[str, tuple[torch.Tensor, bool]]:
            space = super()._augmentation_space(*args).items()
            return {name: (known.double().round(decimals=6), way) for name, (known, way) in space}

    policy, image = Exact(AutoAugmentPolicy(name)), Image.fromarray(picture())
    sums = []
    for pair in range(len(policy.policies)):
        for signs in itertools.product((1, -1), (1, -1)):
            drawn = pair, torch.zeros(2), torch.tensor(signs) > 0
            policy.get_params = lambda _, drawn=drawn: drawn
            sums.append(crc32(np.asarray(policy(image)).tobytes()))
    return {"table": policy.policies, "views": sums}


def main() -> None:
    """Ask them and write it down."""
    import timm
    import torchvision

    np.random.seed(0)
    random.seed(0)
    found = {
        "by": f"timm {timm.__version__}, torchvision {torchvision.__version__}",
        "erasing": {name: erasing_of_timm(**case) for name, case in ERASING.items()},
        "mixing": {name: mixing_of_timm(case) for name, case in MIXING.items()},
        "policies": {name: policy_of_torchvision(name) for name in POLICIES},
    }
    STORED.write_text(json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
