"""From the student's channels to the teacher's, as AB and OFD learn it."""

import flax.linen as nn
from jaxtyping import Array, Float

from kdjax.models.base import kaiming_fan_out
from kdjax.types import AXIS


class Connector(nn.Module):
    """A 1x1 convolution without bias, and batch norm."""

    width: int
    """Channels of the teacher."""
    sync_batch_norm: bool
    """Normalise over the global batch."""

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h w d"]:
        """The map in the teacher's channels."""
        init, axis = kaiming_fan_out, AXIS if self.sync_batch_norm else None
        x = nn.Conv(self.width, (1, 1), use_bias=False, kernel_init=init, name="conv")(x)
        return nn.BatchNorm(use_running_average=False, momentum=0.9, axis_name=axis, name="bn")(x)
