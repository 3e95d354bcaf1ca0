"""The forms for a CPU against the plain operations: values, gradients, exports, traces."""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax.models.batch_norm import BatchNorm
from kdjax.models.kernels import channel_sum, convolution, max_pool

DIMENSIONS = ("NHWC", "HWIO", "NHWC")


def plain(x: jax.Array, kernel: jax.Array, stride: int, pads: Any, groups: int) -> jax.Array:
    return jax.lax.conv_general_dilated(
        x, kernel, (stride, stride), pads, dimension_numbers=DIMENSIONS, feature_group_count=groups
    )


def ours(x: jax.Array, kernel: jax.Array, stride: int, pads: Any, groups: int) -> jax.Array:
    return convolution(
        x,
        kernel,
        (stride, stride),
        pads,
        lhs_dilation=(1, 1),
        rhs_dilation=(1, 1),
        dimension_numbers=DIMENSIONS,
        feature_group_count=groups,
        precision=None,
    )


def normal(seed: int, *shape: int, dtype: str = "float32") -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), dtype)


def value_and_gradients(function: Any, *arguments: jax.Array) -> list[np.ndarray]:
    """With a cotangent that differs from pixel to pixel."""

    @jax.jit
    def both(*arguments: jax.Array) -> Any:
        value, pull = jax.vjp(function, *arguments)
        return value, *pull(normal(9, *value.shape, dtype=value.dtype.name))

    return [np.asarray(result, np.float64) for result in both(*arguments)]


def assert_same(left: list[np.ndarray], right: list[np.ndarray], tolerance: float) -> None:
    for a, b in zip(left, right, strict=True):
        assert a.shape == b.shape
        np.testing.assert_allclose(a, b, atol=tolerance * np.abs(b).max(), rtol=0)


SHAPES = {
    # height and width, kernel, stride, padding, groups, inputs, outputs
    "depthwise": (8, 9, 3, 1, 1, 6, 6, 6),
    "depthwise strided": (8, 8, 3, 2, 1, 6, 6, 6),
    "depthwise strided, odd": (9, 7, 3, 2, 1, 6, 6, 6),
    "depthwise 5x5": (10, 11, 5, 2, 2, 4, 4, 4),
    "depthwise 7x7": (7, 9, 7, 1, 3, 3, 3, 3),
    "depthwise 3x3, stride 3": (11, 10, 3, 3, 0, 3, 3, 3),
    "depthwise, wide padding": (5, 5, 3, 1, 3, 3, 3, 3),
    "pointwise": (8, 9, 1, 1, 0, 1, 6, 10),
    "pointwise strided": (8, 9, 1, 2, 0, 1, 6, 10),
    "pointwise padded": (8, 9, 1, 1, 1, 1, 6, 10),
    "3x3": (8, 9, 3, 1, 1, 1, 6, 10),
    "grey": (8, 9, 3, 1, 1, 1, 1, 6),
    "grey 5x5, strided": (9, 8, 5, 2, 2, 1, 1, 4),
    "colour": (8, 9, 3, 1, 1, 1, 3, 5),
    "colour strided, odd": (9, 7, 3, 2, 1, 1, 3, 5),
    "3x3 strided": (9, 8, 3, 2, 1, 1, 6, 10),
    "grouped": (8, 9, 3, 1, 1, 2, 6, 10),
    "depthwise, two outputs each": (8, 9, 3, 1, 1, 6, 6, 12),
}


TOLERANCES = {"float32": 2e-6, "bfloat16": 2e-2}
ROUNDED = {"depthwise", "depthwise strided, odd", "pointwise", "colour", "3x3"}
"""Every form once: in bfloat16 the other shapes tell nothing new."""


@pytest.mark.parametrize(
    ("shape", "dtype"),
    [
        pytest.param(shape, dtype, marks=() if every_day else pytest.mark.slow)
        for dtype in TOLERANCES
        for shape in SHAPES
        for every_day in [dtype == "float32" or shape in ROUNDED]
    ],
)
def test_convolution(shape: str, dtype: str) -> None:
    height, width, size, stride, pad, groups, inputs, outputs = SHAPES[shape]
    x = normal(0, 3, height, width, inputs, dtype=dtype)
    kernel = normal(1, size, size, inputs // groups, outputs, dtype=dtype)
    rest = {"stride": stride, "pads": ((pad, pad), (pad, pad)), "groups": groups}
    got = value_and_gradients(functools.partial(ours, **rest), x, kernel)
    want = value_and_gradients(functools.partial(plain, **rest), x, kernel)
    assert_same(got, want, TOLERANCES[dtype])


@pytest.mark.parametrize(("height", "width", "size"), [(8, 6, 2), (7, 5, 2), (9, 9, 3)])
def test_max_pool_with_ties(height: int, width: int, size: int) -> None:
    x = nn.relu(normal(0, 3, height, width, 4))  # whole windows are zero

    def reference(x: jax.Array) -> jax.Array:
        return nn.max_pool(x, (size, size), strides=(size, size))

    got = value_and_gradients(lambda x: max_pool(x, size), x)
    assert_same(got, value_and_gradients(reference, x), 0.0)


@pytest.mark.parametrize("shape", [(4, 5, 6, 3), (7, 3)])
def test_channel_sum(shape: tuple[int, ...]) -> None:
    x = normal(0, *shape)
    want = np.asarray(x, np.float64).reshape(-1, shape[-1]).sum(axis=0)
    np.testing.assert_allclose(channel_sum(x), want, rtol=1e-5)


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 2e-6), ("bfloat16", 1e-2)])
@pytest.mark.parametrize("fast", [True, False])
def test_batch_norm_is_flax(dtype: str, tolerance: float, fast: bool) -> None:
    """On two devices, whose statistics are joined; the gradient is taken on each."""
    x, pulled = 3 * normal(0, 2, 4, 5, 6, 3, dtype=dtype) + 1, normal(1, 2, 4, 5, 6, 3, dtype=dtype)
    fields = {"axis_name": "d", "dtype": dtype, "use_fast_variance": fast, "momentum": 0.8}
    params = {"scale": normal(2, 3), "bias": normal(3, 3)}
    assert_same(
        *(normalised(kind, fields, params, x, pulled) for kind in (BatchNorm, nn.BatchNorm)),
        tolerance,
    )


def normalised(kind: Any, fields: Any, params: Any, x: jax.Array, pulled: jax.Array) -> Any:
    """Value, gradients and statistics of a training step, and the value in evaluation after it."""
    layer = kind(use_running_average=False, **fields)
    stats = jax.jit(layer.init)(jax.random.key(0), x[0])["batch_stats"]

    def on_device(x: jax.Array, pulled: jax.Array) -> Any:
        def forward(x: jax.Array, params: Any) -> Any:
            given = {"params": params, "batch_stats": stats}
            return layer.apply(given, x, mutable="batch_stats")

        y, pull, new = jax.vjp(forward, x, params, has_aux=True)
        later = kind(use_running_average=True, dtype="float32")
        return y, pull(pulled), new, later.apply({"params": params, **new}, x)

    results = jax.jit(jax.vmap(on_device, axis_name="d"))(x, pulled)
    return [np.asarray(leaf, np.float64) for leaf in jax.tree.leaves(results)]


def test_other_platforms_get_the_plain_form() -> None:
    def forward(x: jax.Array, kernel: jax.Array) -> jax.Array:
        return max_pool(ours(x, kernel, 1, ((1, 1), (1, 1)), 4), 2)

    shapes = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in ((2, 8, 8, 4), (3, 3, 1, 4))]
    for platform, convolved in (("cpu", 0), ("cuda", 1), ("tpu", 1)):
        module = jax.export.export(jax.jit(forward), platforms=[platform])(*shapes).mlir_module()
        assert module.count("stablehlo.convolution") == convolved
        assert module.count("stablehlo.reduce_window") == convolved
