"""The 1,797 handwritten digits of scikit-learn (8x8, 17 grey levels) as a TFDS data set.

Real data that needs no network: good for a first run, for tests and for nothing else.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

TEST, VALIDATION = 360, 240
"""Examples held out; the remaining 1,197 are for training."""


class KdjaxDigits(tfds.core.GeneratorBasedBuilder):
    """Split once, by a fixed permutation, into train, validation and test."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self) -> tfds.core.DatasetInfo:
        features = tfds.features.FeaturesDict(
            {
                "image": tfds.features.Image(shape=(8, 8, 1)),
                "label": tfds.features.ClassLabel(names=[str(i) for i in range(10)]),
            }
        )
        return tfds.core.DatasetInfo(
            builder=self,
            description="Handwritten digits of the UCI repository, as shipped by scikit-learn.",
            features=features,
            supervised_keys=("image", "label"),
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
        del dl_manager
        from sklearn.datasets import load_digits

        digits = load_digits()
        order = np.random.Generator(np.random.PCG64(0)).permutation(len(digits.target))
        images = np.round(digits.images * (255 / 16)).astype(np.uint8)[order]
        labels = digits.target[order]
        edges = {
            "test": slice(0, TEST),
            "validation": slice(TEST, TEST + VALIDATION),
            "train": slice(TEST + VALIDATION, None),
        }
        return {
            name: self._generate_examples(images[part], labels[part])
            for name, part in edges.items()
        }

    def _generate_examples(
        self, images: np.ndarray, labels: np.ndarray
    ) -> Iterator[tuple[int, dict[str, Any]]]:
        for i, (image, label) in enumerate(zip(images, labels, strict=True)):
            # TFDS encodes a PIL image without TensorFlow, but not an array.
            yield i, {"image": Image.fromarray(image), "label": int(label)}
