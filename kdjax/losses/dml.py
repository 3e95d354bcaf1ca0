"""Deep mutual learning (Zhang et al., 2018, arXiv:1706.00384)."""

import itertools
import re
from typing import ClassVar, Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from kdjax.losses.base import DistillationLoss
from kdjax.losses.cross_entropy import cross_entropy
from kdjax.losses.soft_target import soft_target
from kdjax.types import Batch, Outputs


class DML(DistillationLoss):
    """Each member of an `Ensemble` learns from the labels and from what the others answer.

    With `p_i = softmax(z_i)` of member i of K, and `p_j` held constant where it teaches:

    `sum_i [ -log p_i(label) + 1 / (K - 1) · sum_{j ≠ i} KL(p_j || p_i) ]`

    No teacher, and usual weight 1 without any other term: the labels are in it. Two things are not
    as in the paper. There the networks are updated one after the other, each from the newest
    answers of the rest (in the authors' code from a new batch too); here all are updated at once,
    from one batch. And their code adds 1e-8 within the logarithm, which float32 does not need here.

    `variant="code"` sums over the other members instead of averaging, as the authors' code does.
    For two networks both are the same.
    """

    variant: Literal["code", "paper"] = "paper"
    """Sum (code) or mean (paper) of the divergences from the other members."""

    needs_teacher: ClassVar[bool] = False
    needs_one_label: ClassVar[bool] = True
    needs_label: ClassVar[bool] = True

    def __call__(
        self, student: Outputs, teacher: Outputs | None, batch: Batch
    ) -> Float[Array, " b"]:
        """Nats per example, summed over the members."""
        members = member_logits(student)
        if len(members) < 2:
            raise ValueError(
                f"DML: the student has {len(members)} members to learn from each other; make the "
                "network that is trained an Ensemble of two or more."
            )
        total = jnp.zeros(student.logits.shape[0])
        for logits in members:
            total += cross_entropy(logits, batch.label)
        teachers = len(members) - 1 if self.variant == "paper" else 1
        for own, other in itertools.permutations(members, 2):
            total += soft_target(own, jax.lax.stop_gradient(other), 1.0) / teachers
        return total


def member_logits(outputs: Outputs) -> list[Float[Array, "b classes"]]:
    """What each member of an ensemble answers; empty if the network is no such."""
    found = {name: re.fullmatch(r"member(\d+)", name) for name in outputs.features}
    names = sorted((int(match[1]), name) for name, match in found.items() if match)
    return [outputs.features[name][:, 0, 0].astype("float32") for _, name in names]
