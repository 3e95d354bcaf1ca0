"""The data sets that are prepared without TensorFlow, and their builders.

Names, features, order and version of a prepared data set come from the builder of TFDS.
"""

from collections.abc import Callable, Mapping
from typing import Any

import tensorflow_datasets as tfds

from kdjax.data.published import Cifar, Extracted, Imagenette, Mnist, Splits

Official = Mnist | Cifar | Imagenette

IDX_BYTES = (47_040_016, 60_008, 7_840_016, 10_008)
"""Of the files of MNIST, and of those that are like them."""

OFFICIAL: Mapping[str, Official] = {
    "mnist": Mnist(IDX_BYTES),
    "fashion_mnist": Mnist(
        IDX_BYTES,
        (
            "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
            "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
            "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
            "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
        ),
    ),
    "cifar10": Cifar(
        *(Extracted(f"data_batch_{i}.bin", 30_730_000) for i in range(1, 6)),
        Extracted("test_batch.bin", 30_730_000),
        Extracted("batches.meta.txt"),
    ),
    "cifar100": Cifar(
        Extracted(
            "train.bin",
            153_700_000,
            "f31298fc616915fa142368359df1c4ca2ae984d6915ca468b998a5ec6aeebf29",
        ),
        Extracted(
            "test.bin",
            30_740_000,
            "d8b1e6b7b3bee4020055f0699b111f60b1af1e262aeb93a0b659061746f8224a",
        ),
        Extracted(
            "coarse_label_names.txt",
            328,
            "14e28b5b70e3d8a29704b0d9f8c5985cca5f3c3d08ea043dcc87a036df37a2b3",
        ),
        Extracted(
            "fine_label_names.txt",
            725,
            "4a53f81a8af29bb6aa646bfe2c455db1b061edfde82a39c0cfc313ef536c681b",
        ),
    ),
    "imagenette": Imagenette(),
}
"""Data sets that need no TensorFlow. Digests are of files whose archive has the published one."""


def builder_like(name: str, splits: Callable[[Any, Any], Splits]) -> type:
    """TFDS's builder of that name, but with examples from `splits(builder, download manager)`."""
    base: Any = tfds.builder_cls(name)
    with tfds.core.registered.skip_registration():

        class Prepared(base):
            """The builder of TFDS, read by us."""

        Prepared.name = base.name
    Prepared._split_generators = splits
    Prepared.__module__ = base.__module__  # where it looks for checksums, and what it remembers
    return Prepared
