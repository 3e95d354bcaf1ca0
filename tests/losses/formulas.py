"""What several formulas are made of, in float64 NumPy."""

import numpy as np

from tests.losses.support import CLASSES, PER_CLASS, SPLIT


def log_softmax(z):
    z = z - z.max(axis=-1, keepdims=True)
    return z - np.log(np.exp(z).sum(axis=-1, keepdims=True))


def label_loss(z, labels):
    return -log_softmax(z)[np.arange(len(z)), labels]


def class_weights(loss):
    """What a loss of the label counts the classes, by the counts of `support`."""
    if loss.class_balance is None:
        return np.array(loss.class_weights or np.ones(CLASSES))
    numbers = [sum(loss.class_balance**i for i in range(n)) for n in PER_CLASS]
    weights = 1 / np.array(numbers, np.float64)
    return weights * SPLIT / np.dot(PER_CLASS, weights)


def divergence(z_t, z_s, temperature):
    """`T² KL` of each example, from the teacher's logits."""
    log_t, log_s = log_softmax(z_t / temperature), log_softmax(z_s / temperature)
    return temperature**2 * np.sum(np.exp(log_t) * (log_t - log_s), axis=-1)


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def pool(x, height, width):
    rows, columns = windows(x.shape[1], height), windows(x.shape[2], width)
    cells = [[x[:, r, c].mean(axis=(1, 2)) for c in columns] for r in rows]
    return np.array(cells).transpose(2, 0, 1, 3)


def windows(size, parts):
    return [
        slice(int(np.floor(i * size / parts)), int(np.ceil((i + 1) * size / parts)))
        for i in range(parts)
    ]


def pool_to_common(a, b):
    smaller = np.minimum(a.shape[1:3], b.shape[1:3])
    return pool(a, *smaller), pool(b, *smaller)


def conv(x, kernel, bias=0.0, stride=1, pads=(0, 0)):
    x = np.pad(x, ((0, 0), pads, pads, (0, 0)))
    patches = np.lib.stride_tricks.sliding_window_view(x, kernel.shape[:2], axis=(1, 2))
    return np.einsum("nhwcij,ijco->nhwo", patches[:, ::stride, ::stride], kernel) + bias


def batch_norm(x, scale, shift):
    axes = tuple(range(x.ndim - 1))
    return (x - x.mean(axis=axes)) / np.sqrt(x.var(axis=axes) + 1e-5) * scale + shift
