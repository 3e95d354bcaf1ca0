"""A folder of images as a data set of TFDS."""

import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds
from PIL import Image

from kdjax.data.folder_set import FolderSet, ImageFile
from kdjax.data.images import Decoder

KEPT = (".jpg", ".jpeg", ".png")
"""Files that are stored as they are; what every reader of TFDS can decode."""


def folder_builder(name: str, title: str) -> type:
    """A builder called `title` for `name`, which is `folder:DIR`."""
    if not re.fullmatch(r"[a-z][a-z0-9_]*", title):
        raise ValueError(f"--name: {title!r} must be lower case, such as my_flowers.")
    folder = FolderSet(name, None)
    if folder.unlabelled:
        raise ValueError(
            f"data.name: {name} has no labels in {', '.join(sorted(folder.unlabelled))}; only "
            "labelled folders can be prepared. kdjax reads this one as it is."
        )
    with tfds.core.registered.skip_registration():

        class FolderBuilder(tfds.core.GeneratorBasedBuilder):
            """Images as they lie in the folder, under their names."""

            VERSION = tfds.core.Version("1.0.0")

            def _info(self) -> Any:
                features = tfds.features.FeaturesDict(
                    {
                        "image": tfds.features.Image(shape=(None, None, 3)),
                        "label": tfds.features.ClassLabel(names=list(folder.classes)),
                        "file_name": tfds.features.Text(),
                    }
                )
                return tfds.core.DatasetInfo(
                    builder=self,
                    description=f"A folder of images in {len(folder.classes)} classes.",
                    features=features,
                    supervised_keys=("image", "label"),
                )

            def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
                del dl_manager
                return {split: self._generate_examples(split) for split in folder.files}

            def _generate_examples(self, split: str) -> Iterator[tuple[str, dict[str, Any]]]:
                for file in folder.files[split]:
                    yield file.path, _example(folder.path(split, file), file)

    FolderBuilder.name = title
    return FolderBuilder


def _example(path: Path, file: ImageFile) -> dict[str, Any]:
    """An image that was decoded once, so that nothing broken gets in."""
    data = path.read_bytes()
    pixels = Decoder(channels=3)(data, str(path))
    if path.suffix.lower() not in KEPT:
        encoded = io.BytesIO()
        Image.fromarray(pixels).save(encoded, "PNG")
        data = encoded.getvalue()
    return {"image": data, "label": file.label, "file_name": file.path}
