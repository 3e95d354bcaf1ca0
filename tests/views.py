"""Batches that tell what was done to them, and the views of them."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from kdjax.data.augment import augment
from kdjax.types import AXIS, Batch

HEIGHT, WIDTH, CHANNELS, EXAMPLES = 6, 5, 3, 64


def batch(examples=EXAMPLES, view=0, index=None, image=None):
    """Images without a zero and without two equal pixels, so that every view tells its offset."""
    index = np.arange(examples) if index is None else np.full(examples, index)
    pixels = np.arange(1, 1 + HEIGHT * WIDTH * CHANNELS, dtype=np.uint8)
    shape = (examples, HEIGHT, WIDTH, CHANNELS)
    image = np.broadcast_to(pixels.reshape(shape[1:]), shape) if image is None else image
    return Batch(
        jnp.asarray(image),
        jnp.zeros(examples, jnp.int32),
        jnp.asarray(index, jnp.int32),
        jnp.zeros(examples, jnp.int32),
        jnp.full(examples, view, jnp.int32),
        jnp.ones(examples, bool),
    )


def different(examples=EXAMPLES):
    """Every image and every label its own."""
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (examples, HEIGHT, WIDTH, CHANNELS), np.uint8)
    return batch(examples, image=image)._replace(label=jnp.arange(examples, dtype=jnp.int32))


@functools.partial(jax.jit, static_argnums=0)
def views(transforms, seed, examples):
    return augment(transforms, seed, examples).image


@functools.partial(jax.jit, static_argnums=0)
def parts(transforms, seed, cut):
    return jax.vmap(functools.partial(augment, transforms, seed), axis_name=AXIS)(cut)


def on_devices(transforms, seed, examples, devices=1):
    """The batch as the step augments it, each device its part.

    Devices are places along an axis here, which compiles sooner; trainings have real ones.
    """
    cut = jax.tree.map(lambda x: x.reshape(devices, -1, *x.shape[1:]), examples)
    seen = parts(transforms, seed, cut)
    return jax.tree.map(lambda x: np.asarray(x).reshape(-1, *x.shape[2:]), seen)
