"""Several networks that answer as one: teachers together, or students that learn together."""

import math
from collections.abc import Sequence
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from kdjax.models.base import VisionModel
from kdjax.models.network import Network
from kdjax.types import Outputs, Variables

Weighting = Literal["fixed", "entropy", "confidence"]
"""How members are weighed for an example."""


class Ensemble(VisionModel):
    """The weighted mean of its members' probabilities, `p = sum_i v_i p_i` with `sum_i v_i = 1`.

    Logits are `log p`. With the entropy `H(p) = -sum_c p_c log p_c` in nats, `v_i` is proportional
    to

    - `w_i` (`fixed`);
    - `w_i exp(-H(p_i))` (`entropy`): `exp(H)` is among how many classes a member hesitates;
    - `w_i max_c p_ic` (`confidence`).

    The last two are made for each example. To let a member count more where its entropy is lower is
    the idea of Kwon et al. (ICASSP 2020). Zhang et al. (2022, arXiv:2201.00007) compare with it in
    the form `1 - H_i / sum_j H_j`, which is 0/0 where all members are certain. `exp(-H)` and
    `max p` lie between one over the number of classes and one: no member ever counts for nothing.
    Weights that look at the label, as Zhang et al. propose, are not for a network: it sees images.

    The mean is that of probabilities at temperature 1, and never of logits, whose scale is each
    member's own; a loss with a temperature softens the mean.

    Every member is a network of its own, with its own `mean`, `std`, `dtype` and
    `sync_batch_norm`. These fields of the ensemble come on top, for all members: see `networks`.

    Features are those of the first member, which losses on features so compare with, and the
    logits of every member, `member0`, `member1`, …: `[b, 1, 1, classes]`, float32. The embedding
    is the first member's.
    """

    mean: tuple[float, ...] = (0.0,)
    """Taken from the pixels of all members, before their own."""
    std: tuple[float, ...] = (1.0,)
    """Divides the pixels of all members, before their own."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """bfloat16 for all members; float32: each computes as it says itself."""
    sync_batch_norm: bool = True
    """False for all members; True: each normalises as it says itself."""
    members: tuple[Network, ...] = ()
    """The networks, all of `num_classes` classes."""
    weights: tuple[float, ...] = ()
    """How much each member counts, positive; only their ratios matter. Empty: all alike."""
    weighting: Weighting = "fixed"
    """Whether members count more for an example that they are surer of, and by what measure."""

    def check(self) -> None:
        """Members there are, of the same classes, with a weight each."""
        count = len(self.members)
        if count == 0:
            raise ValueError("members: () cannot work; give at least one network.")
        for i, member in enumerate(self.members):
            if member.num_classes != self.num_classes:
                raise ValueError(
                    f"members.{i}.num_classes: {member.num_classes} cannot work; it must be the "
                    f"{self.num_classes} of the ensemble."
                )
        fine = len(self.weights) in (0, count) and all(
            0 < weight < math.inf for weight in self.weights
        )
        if not fine:
            raise ValueError(
                f"weights: {self.weights!r} cannot work; give {count} positive numbers, one for "
                "each member, or none."
            )

    def networks(self) -> tuple[Network, ...]:
        """The members as they compute: with what the ensemble's own fields say on top."""
        return tuple(self._network(member) for member in self.members)

    def _network(self, member: Network) -> Network:
        # ((x - M) / S - m) / s = (x - (M + S m)) / (S s)
        outer, scale, mean, std = np.broadcast_arrays(self.mean, self.std, member.mean, member.std)
        return member.clone(
            mean=tuple((outer + scale * mean).tolist()),
            std=tuple((scale * std).tolist()),
            dtype=member.dtype if self.dtype == "float32" else self.dtype,
            sync_batch_norm=member.sync_batch_norm and self.sync_batch_norm,
        )

    @nn.compact
    def __call__(self, images: Array, train: bool = False) -> Outputs:
        """All members see the same images."""
        self.check()
        outputs = [
            network.clone(parent=self, name=_name(i))(images, train)
            for i, network in enumerate(self.networks())
        ]
        log_p = jax.nn.log_softmax(jnp.stack([each.logits for each in outputs]))
        logits = jax.nn.logsumexp(self._log_weights(log_p)[..., None] + log_p, axis=0)
        own = {_name(i): each.logits[:, None, None] for i, each in enumerate(outputs)}
        first = outputs[0]
        return first._replace(logits=logits, features={**first.features, **own})

    def _log_weights(self, log_p: Float[Array, "members b classes"]) -> Float[Array, "members b"]:
        sureness = jnp.zeros(log_p.shape[:-1])
        if self.weighting == "entropy":
            sureness = jnp.sum(jnp.exp(log_p) * log_p, axis=-1)
        elif self.weighting == "confidence":
            sureness = log_p.max(axis=-1)
        weights = jnp.asarray(self.weights or (1.0,) * len(self.members))
        return jax.nn.log_softmax(jnp.log(weights)[:, None] + sureness, axis=0)

    def scaled(self, width: float, depth: float) -> "Ensemble":
        """Every member scaled so."""
        return self.clone(members=tuple(m.scaled(width, depth) for m in self.members))


def join_variables(members: Sequence[Variables]) -> dict[str, Any]:
    """The variables of the ensemble, from those of its members in order."""
    joined: dict[str, Any] = {}
    for i, variables in enumerate(members):
        for collection, tree in variables.items():
            joined.setdefault(collection, {})[_name(i)] = tree
    return joined


def member_variables(variables: Variables, member: int) -> dict[str, Any]:
    """Those of one member, from those of the ensemble."""
    name = _name(member)
    return {collection: tree[name] for collection, tree in variables.items() if name in tree}


def _name(member: int) -> str:
    """Of the layers and of the logits of a member."""
    return f"member{member}"
