"""Losses since 2024 beside those in authors' code; a part of `ours`."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from kdjax.losses import ABKD, RLD, TTM, WKD, Proteus, ViTKD
from kdjax.types import Batch
from tests.authors.entry import Ours
from tests.authors.inputs import normal


class GivenOrder(ViTKD):
    """Masks the patches of the largest given numbers."""

    def _noise(self, batch: Batch, patches: int) -> Float[Array, "b patches"]:
        return jnp.asarray(normal("noise", (len(batch.index), patches)))


CLASSIFIER = {"teacher/kernel": "classifier.weight", "teacher/bias": "classifier.bias"}

RECENT: dict[str, Ours] = {
    "ttm": Ours(TTM(), "ttm"),
    "wttm": Ours(TTM(weighted=True), "ttm"),
    "rld": Ours(RLD(), "rld"),
    "rld, two temperatures": Ours(RLD(confidence_temperature=1.0), "rld"),
    "abkd": Ours(ABKD(), "abkd"),
    "abkd, reverse": Ours(ABKD(alpha=0.0, beta=1.0), "abkd"),
    "wkd": Ours(WKD(), "wkd", CLASSIFIER),
    "vitkd": Ours(
        GivenOrder(stages=("stage2",) * 3),
        "vitkd",
        {
            "align0": "align2.0",
            "align1": "align2.1",
            "align2": "align",
            "mask_token": "mask_token",
            "generator_conv1": "generation.0",
            "generator_conv2": "generation.2",
        },
        so_that="the order of the patches is given",
    ),
    "proteus": Ours(
        Proteus(),
        "proteus",
        {
            "token_norm": "token_head.0",
            "token_linear": "token_head.1",
            "feature_norm": "fea_head.0",
            "feature_linear": "fea_head.1",
        },
        so_that="their third objective counts nothing",
    ),
}
