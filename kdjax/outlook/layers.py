"""A network as a list of what it computes for one image, read off its trace."""

import functools
import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.extend.core import Jaxpr, JaxprEqn, jaxprs_in_params

from kdjax.models import Model
from kdjax.models.summary import Shape, abstract_variables


class Layer(NamedTuple):
    """A convolution, a matrix product, or, without operations, the sum of two maps."""

    operations: int
    """`2 · multiply-adds`."""
    outputs: int
    """Numbers it writes."""


@functools.cache  # every number of images asks again
def layers_of(model: Model, shape: Shape) -> tuple[Layer, ...]:
    """Layers in order, for one image."""
    image = jax.ShapeDtypeStruct((1, *shape), jnp.uint8)
    trace = jax.make_jaxpr(model.apply)(abstract_variables(model, shape), image)
    return tuple(_layers(trace.jaxpr))


def operations(layers: tuple[Layer, ...]) -> int:
    """Floating-point operations of all."""
    return sum(layer.operations for layer in layers)


def _layers(jaxpr: Jaxpr) -> Iterator[Layer]:
    for equation in jaxpr.eqns:
        name = equation.primitive.name
        if name == "conv_general_dilated":
            out_channels = equation.params["dimension_numbers"].rhs_spec[0]
            kernel = _shape(equation.invars[1])
            yield _product(equation, math.prod(kernel) // kernel[out_channels])
        elif name == "dot_general":
            (contracted, _), _ = equation.params["dimension_numbers"]
            first = _shape(equation.invars[0])
            yield _product(equation, math.prod(first[axis] for axis in contracted))
        elif name == "add" and _adds_maps(equation):
            yield Layer(0, math.prod(_shape(equation.outvars[0])))
        else:
            yield from _inside(equation)


def _product(equation: JaxprEqn, each: int) -> Layer:
    outputs = math.prod(_shape(equation.outvars[0]))
    return Layer(2 * each * outputs, outputs)


def _adds_maps(equation: JaxprEqn) -> bool:
    """A bias has one pixel only."""
    shapes = {_shape(variable) for variable in (*equation.invars, *equation.outvars)}
    return len(shapes) == 1 and len(min(shapes)) == 4


def _inside(equation: JaxprEqn) -> Iterator[Layer]:
    """Of the bodies: a loop's is repeated; of forms for several platforms, the last is for all."""
    bodies = list(jaxprs_in_params(equation.params))
    if equation.params.get("branches_platforms"):
        bodies = bodies[-1:]
    times = equation.params["length"] if equation.primitive.name == "scan" else 1
    for body in bodies:
        yield from list(_layers(body)) * times


def _shape(variable: Any) -> tuple[int, ...]:
    return variable.aval.shape
