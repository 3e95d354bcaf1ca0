"""What the kinds of data sets have in common."""

import numpy as np

UNLABELLED = -1
"""Label of an image that has none."""


class Pixels:
    """Examples of a data set that stores them decoded: uint8 `[n, H, W, C]`, int32 `[n]`."""

    def __init__(self, images: np.ndarray, labels: np.ndarray) -> None:
        self.images, self.labels = images, labels
