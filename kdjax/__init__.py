"""kdjax: train a big network, derive a small one, distil the one into the other."""

__version__ = "0.1.0"
