"""One for all, across architectures (Hao et al., 2023, arXiv:2310.19444)."""

from typing import ClassVar, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from kdjax.checks import require
from kdjax.losses.base import DistillationLoss, require_teacher, require_temperature
from kdjax.losses.conv_norm import ConvNorm
from kdjax.losses.ramp import Ramp, at
from kdjax.losses.stages import chosen_stages
from kdjax.models.base import kaiming_fan_out
from kdjax.models.stages import stages
from kdjax.types import Batch, Labels, Outputs


class OFA(DistillationLoss):
    """Every stage of the student answers, and each answer is compared with the teacher's.

    With `p = softmax(z / T)`, the label `y` and the teacher's `p_t`, an answer costs

    - `variant="code"`: `-((1 + p_t,y)^eps - 1) log p_y - sum_{c≠y} p_t,c^eps log p_c`;
    - `variant="paper"`: `-(1 + p_t,y)^eps log p_y - sum_{c≠y} p_t,c log p_c`, which has the
      cross-entropy of the label in it.

    At `eps = 1` the first is the cross-entropy to the teacher; larger ones enhance the target.
    Summed over the student's logits and an exit branch of each stage: stride-2 separable
    convolutions with batch norm and ReLU, one for each stage that follows (a 1x1 convolution after
    the last), the mean over pixels and a dense layer. A branch is as wide as the wider of the two
    embeddings. The authors give students that are transformers attention blocks instead; here
    tokens are maps, and all students have the same branches.

    Usual weight: 1, beside the labels, and eps from 1 to 1.5 by pair, one for all answers or each
    its own.
    """

    needs_one_label: ClassVar[bool] = True
    needs_label: ClassVar[bool] = True

    stages: tuple[str, ...] = ()
    """Stages of the student with an exit; empty: all."""
    eps: tuple[float, ...] = (1.0,)
    """How much the target is enhanced; positive. One for all answers, or one for each stage and
    then one for the logits."""
    temperature: float | Ramp = 1.0
    """Divides both logits; positive. The loss is not multiplied by its square."""
    variant: Literal["code", "paper"] = "code"
    """Which of the two published forms."""
    sync_batch_norm: bool = True
    """Normalise the branches over the global batch."""

    def check(self) -> None:
        """Numbers are positive."""
        positive = bool(self.eps) and min(self.eps) > 0
        require("eps", self.eps, positive, "one or more numbers, all positive")
        require_temperature(self.temperature)

    @nn.compact
    def __call__(
        self, student: Outputs, teacher: Outputs | None, batch: Batch
    ) -> Float[Array, " b"]:
        """Nats per example, over all answers."""
        teacher = require_teacher(self, teacher)
        temperature = at(self.temperature, batch.epoch)
        width = max(student.embedding.shape[-1], teacher.embedding.shape[-1])
        answers = []
        names = chosen_stages(self, "student", student, self.stages)
        for name in names:
            pooled = self._branch(student, name, width).mean(axis=(1, 2))
            answers.append(nn.Dense(student.logits.shape[-1], name=f"{name}_classifier")(pooled))
        answers.append(student.logits)
        total = jnp.zeros(student.logits.shape[0])
        for answer, eps in zip(answers, self._eps(names), strict=True):
            target = self._target(teacher.logits / temperature, batch.label, eps)
            total -= jnp.sum(target * jax.nn.log_softmax(answer / temperature), axis=-1)
        return total

    def _eps(self, names: tuple[str, ...]) -> tuple[float, ...]:
        answers = len(names) + 1
        if len(self.eps) not in (1, answers):
            raise ValueError(
                f"OFA: {len(self.eps)} values of eps for {answers} answers; give one, or one for "
                f"each of {', '.join(names)} and the logits."
            )
        return self.eps * answers if len(self.eps) == 1 else self.eps

    def _target(
        self, logits: Float[Array, "b classes"], label: Labels, eps: float
    ) -> Float[Array, "b classes"]:
        log_p = jax.nn.log_softmax(logits)
        enhanced = eps * jnp.log1p(jnp.exp(log_p))
        is_label = jax.nn.one_hot(label, logits.shape[-1]) > 0
        if self.variant == "paper":
            return jnp.where(is_label, jnp.exp(enhanced), jnp.exp(log_p))
        return jnp.where(is_label, jnp.expm1(enhanced), jnp.exp(eps * log_p))

    def _branch(self, student: Outputs, name: str, width: int) -> Float[Array, "b h w d"]:
        x = student.features[name].astype("float32")
        order = stages(student)
        after = len(order) - 1 - order.index(name) if name in order else len(order)
        if not after:
            return nn.Conv(width, (1, 1), kernel_init=kaiming_fan_out, name=f"{name}_exit")(x)
        for i in range(1, after + 1):
            wider = width if i == after else 2 * x.shape[-1]
            x = SeparableConvs(wider, self.sync_batch_norm, name=f"{name}_exit{i}")(x)
        return x


class SeparableConvs(nn.Module):
    """Two depthwise separable convolutions with batch norm and ReLU; the first halves the size."""

    width: int
    """Channels of the result."""
    sync: bool = True
    """Normalise over the global batch."""

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 d"]:
        """Half as large, in the width asked for."""
        channels = x.shape[-1]
        for i, (stride, width) in enumerate(((2, channels), (1, self.width)), start=1):
            x = nn.Conv(
                channels,
                (3, 3),
                strides=stride,
                padding=1,
                feature_group_count=channels,
                use_bias=False,
                kernel_init=kaiming_fan_out,
                name=f"depthwise{i}",
            )(x)
            x = nn.relu(ConvNorm(width, sync=self.sync, name=f"pointwise{i}")(x))
        return x
