"""Vision transformers (Dosovitskiy et al., 2021, arXiv:2010.11929), in DeiT's three sizes.

DeiT (Touvron et al., 2021, arXiv:2012.12877) adds a token that is taught by the teacher.
"""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array

from kdjax.models.base import Naming, VisionModel, imagenet, renaming, scaled_size
from kdjax.models.dropout import drop_path, dropout, linear_rates
from kdjax.types import Outputs

truncated = nn.initializers.truncated_normal(0.02)


class ViT(VisionModel):
    """Square patches become tokens; blocks of self-attention and an MLP, each behind a norm.

    Attention reads normalised tokens and adds onto the stream ("pre-norm"); LayerNorm has epsilon
    1e-6, GELU is exact. Position embeddings are learned for one image size.
    """

    patch: int = 16
    """Height and width of a patch in pixels."""
    image_size: tuple[int, int] = (224, 224)
    """Height and width of the images; there is one position embedding for each of their patches."""
    blocks: tuple[int, ...] = (3, 3, 3, 3)
    """Blocks of each stage. All have the same shape; stages say where features are taken."""
    heads: int = 3
    """Attention heads; with `head_size` they make the width of a token."""
    head_size: int = 64
    """Channels of each head."""
    expansion: int = 4
    """Hidden units of an MLP, in widths of a token."""
    distillation_token: bool = False
    """A second token with its own head, as in DeiT.

    The logits are those of the class head in training, which learns from the labels, and the mean
    of both heads in evaluation. The embedding is the mean of both tokens. Each head's own logits
    are the features `class_head` and `distillation_head`, `[b, 1, 1, classes]`; the second learns
    nothing without the loss `DistillationToken`.
    """

    dropout: float = 0.0
    """In training, of what is added to the stream (positions, attention, MLP) and inside the MLPs:
    the share that is zero. The paper has 0.1 on ImageNet, DeiT 0."""
    drop_path: float = 0.0
    """Stochastic depth, in training: how often an example goes without the attention of the last
    block, and without its MLP; 0 in the first and linear between them, as in timm. DeiT has 0.1."""

    @property
    def width(self) -> int:
        """Channels of a token."""
        return self.heads * self.head_size

    @nn.compact
    def __call__(self, images: Array, train: bool = False) -> Outputs:
        """Features `stem`, `stage1`, … are maps of the patch tokens, `[b, h, w, width]`."""
        grid = self._grid(images)
        x = dropout(self._embed(self.pixels(images)), self.dropout, train, "position_dropout")
        features = {"stem": _map(x, *grid)}
        rates = iter(linear_rates(self.drop_path, sum(self.blocks)))
        for i, count in enumerate(self.blocks, start=1):
            for j in range(count):
                x = self._block(x, f"stage{i}_block{j}", next(rates), train)
            features[f"stage{i}"] = _map(x, *grid)
        return self._classify(self._norm("norm")(x), features, train)

    def _grid(self, images: Array) -> tuple[int, int]:
        """Rows and columns of patches. ValueError for any image but those of `image_size`."""
        height, width = self.image_size
        if images.shape[1:3] != self.image_size:
            given = images.shape[1:3]
            raise ValueError(
                f"ViT.image_size: {height}x{width}, but the images have {given[0]}x{given[1]} "
                f"pixels; resize them, or give image_size={given}."
            )
        if height % self.patch or width % self.patch:
            raise ValueError(
                f"ViT.patch: {self.patch} does not divide image_size {height}x{width}; give a "
                "divisor of both."
            )
        return height // self.patch, width // self.patch

    def _embed(self, pixels: Array) -> Array:
        """`[b, t, width]`: the class token, the distillation token if any, then the patches."""
        window = (self.patch, self.patch)
        stem = nn.Conv(self.width, window, window, "VALID", dtype=self.dtype, name="stem")
        patches = stem(pixels).reshape(pixels.shape[0], -1, self.width)
        names = ("class_token", "distil_token")[: 1 + self.distillation_token]
        tokens = [self.param(name, truncated, (1, 1, self.width)) for name in names]
        shared = jnp.concatenate(tokens, axis=1).astype(self.dtype)
        shared = jnp.broadcast_to(shared, (pixels.shape[0], *shared.shape[1:]))
        x = jnp.concatenate([shared, patches], axis=1)
        return x + self.param("position", truncated, (1, *x.shape[1:])).astype(self.dtype)

    def _block(self, x: Array, name: str, skipped: float, train: bool) -> Array:
        y = self._attention(self._norm(f"{name}_norm1")(x), name)
        y = dropout(y, self.dropout, train, f"{name}_dropout1")
        x = x + drop_path(y, skipped, train, f"{name}_path1")
        y = self._mlp(self._norm(f"{name}_norm2")(x), name, train)
        return x + drop_path(y, skipped, train, f"{name}_path2")

    def _mlp(self, x: Array, name: str, train: bool) -> Array:
        y = self._dense(self.expansion * self.width, f"{name}_fc1")(x)
        y = dropout(nn.gelu(y, approximate=False), self.dropout, train, f"{name}_dropout2")
        y = self._dense(self.width, f"{name}_fc2")(y)
        return dropout(y, self.dropout, train, f"{name}_dropout3")

    def _attention(self, x: Array, name: str) -> Array:
        def heads(part: Array) -> Array:
            return part.reshape(*x.shape[:2], self.heads, self.head_size)

        qkv = self._dense(3 * self.width, f"{name}_qkv")(x)
        query, key, value = map(heads, jnp.split(qkv, 3, axis=-1))
        scores = jnp.einsum("bqhs,bkhs->bhqk", query * self.head_size**-0.5, key)
        weights = nn.softmax(scores.astype(jnp.float32)).astype(self.dtype)
        y = jnp.einsum("bhqk,bkhs->bqhs", weights, value).reshape(x.shape)
        return self._dense(self.width, f"{name}_proj")(y)

    def _classify(self, tokens: Array, features: dict[str, Array], train: bool) -> Outputs:
        embedding = tokens[:, 0]
        logits = self._dense(self.num_classes, "classifier")(embedding)
        if self.distillation_token:
            other = self._dense(self.num_classes, "distillation_classifier")(tokens[:, 1])
            features["class_head"] = logits[:, None, None]
            features["distillation_head"] = other[:, None, None]
            embedding = (embedding + tokens[:, 1]) / 2
            logits = logits if train else (logits + other) / 2
        return Outputs(logits.astype(jnp.float32), features, embedding)

    def _norm(self, name: str) -> nn.LayerNorm:
        return nn.LayerNorm(epsilon=1e-6, dtype=self.dtype, name=name)

    def _dense(self, features: int, name: str) -> nn.Dense:
        return nn.Dense(features, dtype=self.dtype, kernel_init=truncated, name=name)

    def torch_names(self) -> tuple[Naming, ...]:
        """timm's names, which are those of DeiT's own files; there the blocks have no stages."""
        names = [f"stage{i}_block{j}" for i, n in enumerate(self.blocks, 1) for j in range(n)]
        numbered = ((rf"^{name}_", f"blocks.{n}.") for n, name in enumerate(names))
        layers = (
            (r"\.(qkv|proj)$", r".attn.\1"),
            (r"\.(fc[12])$", r".mlp.\1"),
            (r"^stem$", "patch_embed.proj"),
            (r"^class_token$", "cls_token"),
            (r"^distil_token$", "dist_token"),
            (r"^position$", "pos_embed"),
            (r"^classifier$", "head"),
            (r"^distillation_classifier$", "head_dist"),
        )
        return (renaming(*numbered, *layers),)

    def scaled(self, width: float, depth: float) -> "ViT":
        """Fewer heads of the same size, hence narrower tokens; each stage shorter."""
        return self.clone(
            heads=scaled_size(self.heads, width),
            blocks=tuple(scaled_size(count, depth) for count in self.blocks),
        )


def _map(tokens: Array, height: int, width: int) -> Array:
    """The patches, which come last, where they lie in the image."""
    batch, count, channels = tokens.shape
    return tokens[:, count - height * width :].reshape(batch, height, width, channels)


_DEIT = imagenet(ViT())

VITS = {
    "deit_tiny": _DEIT,
    "deit_small": _DEIT.clone(heads=6),
    "deit_base": _DEIT.clone(heads=12),
    "deit_tiny_distilled": _DEIT.clone(distillation_token=True),
    "deit_small_distilled": _DEIT.clone(heads=6, distillation_token=True),
    "deit_base_distilled": _DEIT.clone(heads=12, distillation_token=True),
}
