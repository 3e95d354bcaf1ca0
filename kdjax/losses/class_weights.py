"""What the examples of each class count, given or by how many there are."""

from collections.abc import Sequence
from typing import TypeVar

import jax.numpy as jnp
from jaxtyping import Array, Float

from kdjax.checks import require
from kdjax.losses.label_loss import LabelLoss

W = TypeVar("W", bound="WeightedLabelLoss")


class WeightedLabelLoss(LabelLoss):
    """A loss of the label whose classes need not count alike.

    Class c of the target counts `w_c q_c`, so a mixed or smoothed label counts by what it has of
    each class, as in PyTorch. Unlike there the mean over the batch divides by the number of
    examples, not by the sum of their weights: what an example counts does not depend on its batch.
    """

    class_weights: tuple[float, ...] = ()
    """`w`, a number for each class in the order of the data; none: all count 1."""
    class_balance: float | None = None
    """`b` of weights that follow the training split: `w_c` is `(1 - b) / (1 - b^n_c)` for a class
    of `n_c` examples (the effective number of Cui et al., 2019, arXiv:1901.05555, there 0.9 to
    0.9999), scaled to mean 1 over the split; 1: `1 / n_c`, scikit-learn's "balanced". None: given
    by `class_weights`."""

    @property
    def counts_classes(self) -> bool:
        """Weights that follow the split do."""
        return self.class_balance is not None

    def check(self) -> None:
        """Weights are given or counted, and some class counts."""
        super().check()
        given, b = self.class_weights, self.class_balance
        some = not given or (min(given) >= 0 and max(given) > 0)
        require("class_weights", given, some, ">= 0, and one of them more")
        if b is not None:
            require("class_balance", b, 0 <= b <= 1, "in [0, 1], or None")
            require("class_balance", b, not given, "None where class_weights are given")

    def for_examples(self: W, examples: int, per_class: Sequence[int] = ()) -> W:
        """With the weights that follow the split. ValueError if a class has no example there."""
        if self.class_balance is None or not per_class:
            return self
        weights = balanced(per_class, self.class_balance)
        return self.clone(class_weights=weights, class_balance=None)

    def weights(self, classes: int) -> Float[Array, " classes"]:
        """What each class counts. ValueError if there are weights of other classes."""
        if not self.is_initializing():  # only shapes matter then
            require("class_balance", self.class_balance, not self.counts_classes, "counted before")
        if not self.class_weights:
            return jnp.ones(classes)
        given = len(self.class_weights)
        if given != classes:
            raise ValueError(
                f"class_weights: {given} numbers, but there are {classes} classes; give one each."
            )
        return jnp.asarray(self.class_weights, jnp.float32)


def balanced(per_class: Sequence[int], b: float) -> tuple[float, ...]:
    """`(1 - b) / (1 - b^n)` of classes of n examples, or 1 / n, at mean 1 over all examples."""
    if 0 in per_class:
        raise ValueError(
            f"class_balance: class {list(per_class).index(0)} has no training example, and so no "
            "weight; give class_weights instead, or data of all classes."
        )
    raw = [1 / n if b == 1 else (1 - b) / (1 - b**n) for n in per_class]
    total = sum(n * w for n, w in zip(per_class, raw, strict=True))
    return tuple(w * sum(per_class) / total for w in raw)
