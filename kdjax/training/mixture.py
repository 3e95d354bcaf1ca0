"""What a teacher says of mixtures that it was never shown."""

import jax
import jax.numpy as jnp

from kdjax.data.augment.mixing import partners
from kdjax.types import Batch, Outputs


def mixture(said: Outputs, batch: Batch, views: int) -> Outputs:
    """Of each mixture, from what the teacher says of each image by itself; the axis AXIS is bound.

    The softmax of the logits is `share · softmax(z) + (1 - share) · softmax(z of the partner)`.
    They are moved by the mean, by share, of what it takes from both, so an image that is not mixed
    keeps its own, which a loss on plain logits sees. Features of a mixture are no mixture of
    features, and the classifier's answer to a mean embedding is not that softmax: there are none.
    """
    # Rounding may take a share of counted pixels beyond its bounds.
    share = jnp.clip(batch.share, 0, 1)[:, None]
    own, other = said.logits, partners(batch.index, views)(said.logits)
    ours, theirs = (jax.nn.logsumexp(z, axis=-1, keepdims=True) for z in (own, other))
    log_p = jnp.logaddexp(own - ours + jnp.log(share), other - theirs + jnp.log1p(-share))
    logits = log_p + share * ours + (1 - share) * theirs
    return Outputs(logits, {}, jnp.zeros((len(logits), 0), jnp.float32))
