"""What is kept of a teacher's outputs, and what is made of it again.

Dense, it is every logit in float16. With `top_k`, it is the k largest logits, the classes they
belong to, and `rest`, the logarithm of the summed exponentials of the other C - k, each of which
becomes `rest - log(C - k)`. So the softmax keeps the mass of the k and of all others.
"""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from kdjax.experiment import Cache
from kdjax.types import Outputs

Answers = Mapping[str, Array]
"""What is kept of a batch, by name, each `[b, …]`."""


def encode(cache: Cache, outputs: Outputs) -> Answers:
    """What is kept of the outputs. A logit beyond float16's 65,504 becomes infinite."""
    kept: dict[str, Array] = {}
    if cache.top_k is None:
        kept["logits"] = outputs.logits.astype(jnp.float16)
    else:
        values, classes = jax.lax.top_k(outputs.logits, cache.top_k)
        rows = jnp.arange(len(classes))[:, None]
        others = outputs.logits.at[rows, classes].set(-jnp.inf)
        kept["values"] = values.astype(jnp.float16)
        kept["classes"] = classes.astype(_class_number(outputs.logits.shape[-1]))
        kept["rest"] = jax.nn.logsumexp(others, axis=-1)
    if cache.embedding:
        kept["embedding"] = outputs.embedding.astype(jnp.float16)
    return kept


def decode(cache: Cache, answers: Answers, classes: int) -> Outputs:
    """Outputs with the logits that were kept, or close to them; no features.

    Without an embedding there is one of width zero.
    """
    if cache.top_k is None:
        logits = answers["logits"].astype(jnp.float32)
    else:
        other = answers["rest"] - jnp.log(float(classes - cache.top_k))
        logits = jnp.broadcast_to(other[:, None], (len(other), classes))
        rows = jnp.arange(len(other))[:, None]
        values = answers["values"].astype(jnp.float32)
        logits = logits.at[rows, answers["classes"].astype(jnp.int32)].set(values)
    nothing = jnp.zeros((len(logits), 0), jnp.float32)
    embedding = answers["embedding"].astype(jnp.float32) if cache.embedding else nothing
    return Outputs(logits, {}, embedding)


def record(cache: Cache, classes: int, width: int) -> np.dtype:
    """One example on disk; `width` is the embedding's."""
    if cache.top_k is None:
        fields: list[tuple] = [("logits", np.float16, (classes,))]
    else:
        k = (cache.top_k,)
        number = _class_number(classes)
        fields = [("values", np.float16, k), ("classes", number, k), ("rest", np.float32)]
    if cache.embedding:
        fields.append(("embedding", np.float16, (width,)))
    return np.dtype(fields)


def _class_number(classes: int) -> type[np.unsignedinteger]:
    """A type that has a number for each of so many classes."""
    return np.uint16 if classes <= 2**16 else np.uint32


def error_bound(records: np.ndarray, classes: int, temperature: float) -> Float[np.ndarray, " n"]:
    """How far each top-k answer may be off: total variation at a temperature of at least 1.

    The softmax at temperature T of what is decoded gives the others the mass `S / (A + S)`, with
    `A = Σ exp(z_i / T)` over the k and `S = (C - k) exp(other / T)`. The true others have the
    same mean of `exp z`, so by Jensen's inequality no more than S, and the k lose no more than the
    others gain: the total variation is at most `S / (A + S)`, and zero without others.
    """
    values = records["values"].astype(np.float64) / temperature
    others = classes - values.shape[1]
    other = (records["rest"].astype(np.float64) - np.log(others)) / temperature
    peak = values.max(axis=1)
    ours = np.exp(values - peak[:, None]).sum(axis=1)
    theirs = others * np.exp(other - peak)
    return theirs / (ours + theirs)
