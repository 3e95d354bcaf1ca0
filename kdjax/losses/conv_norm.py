"""What most adapters are made of."""

import flax.linen as nn
from jaxtyping import Array, Float

from kdjax.models.base import kaiming_fan_out
from kdjax.types import AXIS


class ConvNorm(nn.Module):
    """A convolution without bias that keeps the size of the map, then batch norm."""

    width: int
    """Channels of the result."""
    kernel: int = 1
    """Pixels a side of the window."""
    sync: bool = True
    """Normalise over the global batch; a loss of the whole batch sees that anyway."""

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h w d"]:
        """The map in the width asked for."""
        conv = nn.Conv(
            self.width,
            (self.kernel, self.kernel),
            padding=self.kernel // 2,
            use_bias=False,
            kernel_init=kaiming_fan_out,
            name="conv",
        )
        norm = nn.BatchNorm(
            use_running_average=False,
            momentum=0.9,
            axis_name=AXIS if self.sync else None,
            use_fast_variance=False,  # E x² - (E x)² loses its digits on maps of one pixel
            name="bn",
        )
        return norm(conv(x))
