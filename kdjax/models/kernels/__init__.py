"""Convolutions, pooling and sums over pixels in the forms that are fast on a CPU.

XLA's CPU backend runs depthwise convolutions, those of few channels, 1x1 convolutions, windows and
sums over all but the last axis many times slower than the same arithmetic written otherwise. Every
function here gives what the plain operation gives, value and gradients, to rounding. Which form
runs is decided where a program is lowered: an exported network, and a trace, hold both.
"""

from kdjax.models.kernels.convolution import convolution
from kdjax.models.kernels.pooling import max_pool
from kdjax.models.kernels.sums import channel_sum

__all__ = ["channel_sum", "convolution", "max_pool"]
