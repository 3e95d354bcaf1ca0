"""The nouns every other module speaks in. Knows nothing of models, losses, data or training."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from jaxtyping import Array, Bool, Float, Int

AXIS = "batch"
"""Name of the device axis that the global batch is split over."""

Variables = Mapping[str, Any]
"""A Flax variable collection: `{"params": ..., "batch_stats": ...}`."""


class Outputs(NamedTuple):
    """What a model says about a batch of images.

    - `logits`: unnormalised class scores, always float32.
    - `features`: the named feature maps, in the order the network computes them.
    - `embedding`: the vector the classifier reads.
    - `preactivations`: of stages whose feature comes out of a ReLU or ReLU6, the map that went in;
      of those that the next layer normalises and rectifies, the normalised one. A stage that is
      missing has a linear end. Stems are left out.
    - `pooled`: the map whose mean over the pixels is the embedding, under the name of its stage;
      empty where layers lie between the two.
    """

    logits: Float[Array, "b classes"]
    features: dict[str, Array]
    embedding: Float[Array, "b d"]
    preactivations: Mapping[str, Array] = {}
    pooled: Mapping[str, Array] = {}


class Batch(NamedTuple):
    """Examples as they reach a device.

    - `image`: uint8 `[b, H, W, C]`, before augmentation and normalisation.
    - `label`: class index.
    - `index`: position of the example in its split: its name, in every epoch and on any device.
    - `epoch`: how many passes over the split, or as many draws, came before.
    - `view`: which of the example's random views is seen; with `index` it keys augmentation.
    - `mask`: False for padding, which counts nowhere.
    - `other_label`, `share`: of an image that is `share` its own and `1 - share` another one, the
      label of that other one; None where no images are mixed.
    - `answers`: what is kept of the teacher's outputs; None where it is asked.
    - `shown`: what the teacher sees; None where that is `image`.
    """

    image: Any
    label: Any
    index: Any
    epoch: Any
    view: Any
    mask: Any
    other_label: Any = None
    share: Any = None
    shown: Any = None
    answers: Any = None


Mask = Bool[Array, " b"]
Labels = Int[Array, " b"]
