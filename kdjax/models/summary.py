"""The size and the cost of a network, read off its trace.

Nothing is computed: no weights are allocated and no device is touched. Must not know any one
network: it sees a forward pass as abstract shapes and a list of primitive operations.
"""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal, jaxprs_in_params
from jaxtyping import Array

from kdjax.models.base import VisionModel
from kdjax.types import Outputs, Variables

Shape = tuple[int, int, int]
"""Height, width and channels of one image."""


def parameter_count(model: VisionModel, shape: Shape) -> int:
    """Of how many numbers it is made; the running statistics of batch norm are not among them."""
    variables = abstract_variables(model, shape)
    leaves = jax.tree.leaves((variables["params"], variables.get("frozen")))
    return sum(math.prod(leaf.shape) for leaf in leaves)


@functools.lru_cache(maxsize=64)  # whoever plans or derives asks about a network many times
def abstract_variables(model: VisionModel, shape: Shape) -> Variables:
    """Every array of the network as a shape."""
    key = jax.eval_shape(lambda: jax.random.key(0))
    return jax.eval_shape(model.init, key, _image(shape))


def variable_shapes(model: VisionModel, shape: Shape) -> dict[tuple[str, ...], tuple[int, ...]]:
    """Every array of the network by its path, `("params", "stem", "kernel")`."""
    leaves = jax.tree_util.tree_leaves_with_path(abstract_variables(model, shape))
    return {tuple(part.key for part in path): tuple(leaf.shape) for path, leaf in leaves}


def flops(model: VisionModel, shape: Shape) -> int:
    """Floating-point operations to classify one image: `2 · multiply-adds`.

    Counts convolutions and matrix products. As is usual, products with padding count;
    normalisation, activations and pooling do not.
    """
    forward = jax.make_jaxpr(model.apply)(abstract_variables(model, shape), _image(shape))
    return 2 * _multiply_adds(forward.jaxpr)


def stage_shapes(model: VisionModel, shape: Shape) -> dict[str, tuple[int, ...]]:
    """Per image: `(H, W, C)` of each feature map in order, then `(d,)` of the `embedding`."""
    outputs = output_shapes(model, shape)
    maps = {name: tuple(feature.shape[1:]) for name, feature in outputs.features.items()}
    return {**maps, "embedding": tuple(outputs.embedding.shape[1:])}


def output_shapes(model: VisionModel, shape: Shape) -> Outputs:
    """The outputs for one image as shapes, the features in the order they are computed."""
    names: list[str] = []

    def forward(variables: Variables, image: Array) -> Outputs:
        outputs: Any = model.apply(variables, image)
        names.extend(outputs.features)  # JAX sorts the keys of whatever leaves a trace.
        return outputs

    outputs = jax.eval_shape(forward, abstract_variables(model, shape), _image(shape))
    return outputs._replace(features={name: outputs.features[name] for name in names})


def needed(jaxpr: Jaxpr) -> set[Any]:
    """Variables that the results depend on; an equation needs all its inputs or none."""
    found = {v for v in jaxpr.outvars if not isinstance(v, Literal)}
    for equation in reversed(jaxpr.eqns):
        if found.intersection(equation.outvars):
            found.update(v for v in equation.invars if not isinstance(v, Literal))
    return found


def is_random(jaxpr: Jaxpr) -> bool:
    """Whether random numbers are drawn that the results depend on."""
    used = needed(jaxpr)
    equations = [equation for equation in jaxpr.eqns if used.intersection(equation.outvars)]
    return any(
        equation.primitive.name == "random_bits"
        or any(map(is_random, jaxprs_in_params(equation.params)))
        for equation in equations
    )


def on_any_platform(equation: JaxprEqn) -> ClosedJaxpr | None:
    """Of a choice by platform (`jax.lax.platform_dependent`) what stands for all of them."""
    if equation.params.get("branches_platforms") is None:
        return None
    plain: ClosedJaxpr = equation.params["branches"][-1]
    return plain


def shape_of(variable: Any) -> tuple[int, ...]:
    """Of an array in a jaxpr."""
    return variable.aval.shape


def _image(shape: Shape) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct((1, *shape), jnp.uint8)


def _multiply_adds(jaxpr: Jaxpr) -> int:
    return sum(_of_equation(equation) for equation in jaxpr.eqns)


def _of_equation(equation: JaxprEqn) -> int:
    parameters, operation = equation.params, equation.primitive.name
    if operation == "conv_general_dilated":
        out_channels = parameters["dimension_numbers"].rhs_spec[0]
        kernel = shape_of(equation.invars[1])
        each = math.prod(size for axis, size in enumerate(kernel) if axis != out_channels)
        return each * math.prod(shape_of(equation.outvars[0]))
    if operation == "dot_general":
        (contracted, _), _ = parameters["dimension_numbers"]
        each = math.prod(shape_of(equation.invars[0])[axis] for axis in contracted)
        return each * math.prod(shape_of(equation.outvars[0]))
    if (plain := on_any_platform(equation)) is not None:
        return _multiply_adds(plain.jaxpr)
    # A loop of known length repeats its body; any other body runs once.
    times = parameters["length"] if operation == "scan" else 1
    return times * sum(_multiply_adds(body) for body in jaxprs_in_params(parameters))
