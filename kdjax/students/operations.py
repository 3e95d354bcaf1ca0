"""What the operations of JAX do to labels of channels.

Knows equations of a jaxpr one at a time; must not know whose arrays they read, nor what is inside
an operation that stands for others.
"""

from collections.abc import Callable, Sequence

import numpy as np
from jax.extend.core import JaxprEqn

from kdjax.models.summary import shape_of
from kdjax.students.joined import Joined
from kdjax.students.labels import (
    Labels,
    Layer,
    Value,
    along,
    cut,
    moved,
    padded,
    reshaped,
    rows,
    stretched,
    vector,
    without,
)

POSITIONAL = frozenset({"sort", "rev", "cumsum", "cumprod", "cummax", "cummin", "cumlogsumexp"})
"""Operations that keep a shape and yet mix positions."""


def results(same: Joined, equation: JaxprEqn, inputs: list[Value]) -> list[Value]:
    """Labels of the results, from those of the arguments; labels that meet are joined.

    An operation that is not known ends the channels' way.
    """
    name = equation.primitive.name
    if name in RULES:
        return RULES[name](same, equation, inputs)
    if name.startswith("reduce_window"):
        return [_through_windows(equation, inputs[0])]
    if name.startswith("reduce_") or name in ("argmax", "argmin"):
        return [without(layers, equation.params["axes"]) for layers in inputs[:1]]
    out = shape_of(equation.outvars[0])
    if name not in POSITIONAL and all(_fits(shape_of(atom), out) for atom in equation.invars):
        return [same.together([stretched(value, out) for value in inputs])]
    return [[] for _ in equation.outvars]


def _through_windows(equation: JaxprEqn, value: Value) -> Value:
    window = equation.params["window_dimensions"]
    return [layer for layer in value if all(window[axis] == 1 for axis in layer.axes)]


def _fits(shape: Sequence[int], out: Sequence[int]) -> bool:
    """Whether NumPy would spread the one over the other."""
    same_rank = len(shape) == len(out)
    return not shape or (same_rank and all(a in (1, b) for a, b in zip(shape, out, strict=True)))


def _product(same: Joined, equation: JaxprEqn, inputs: list[Value]) -> list[Value]:
    contracted, batch = equation.params["dimension_numbers"]
    left, right = (shape_of(side) for side in equation.invars)
    rank = len(shape_of(equation.outvars[0]))
    for a, b in zip(*contracted, strict=True):
        same.join(vector(inputs[0], a, left[a]), vector(inputs[1], b, left[a]))
    heads = [
        _heads(same, [rows(inputs[0], a, left[a]), rows(inputs[1], b, left[a])], i, rank)
        for i, (a, b) in enumerate(zip(*batch, strict=True))
    ]
    result: list[Value] = []
    place = len(batch[0])
    for value, shape, gone, kept in zip(inputs, (left, right), contracted, batch, strict=True):
        free = [axis for axis in range(len(shape)) if axis not in (*gone, *kept)]
        places = {axis: place + i for i, axis in enumerate(free)}
        places |= {axis: i for i, axis in enumerate(kept)}
        place += len(free)
        result += [[moved(x, places, rank)] for x in value if x.axes <= places.keys()]
    return [same.together([*heads, *result])]


def _heads(same: Joined, sides: Sequence[Sequence[Labels]], axis: int, rank: int) -> Value:
    """Labels along an axis of attention's heads: each is kept or lost as a whole."""
    both = [row for side in sides for row in side]
    for row in both:
        same.join(both[0][:, :1], row)
    return [Layer(frozenset({axis}), along(row[:, 0], rank, axis)) for row in both[:1]]


def _concatenation(same: Joined, equation: JaxprEqn, inputs: list[Value]) -> list[Value]:
    axis = equation.params["dimension"]
    rank = len(shape_of(equation.outvars[0]))
    parts, rest = [], []
    for operand, value in zip(equation.invars, inputs, strict=True):
        cut_up = [layer for layer in value if axis in layer.axes]
        rest.append([layer for layer in value if axis not in layer.axes])
        none = Layer(frozenset({axis}), along(np.zeros(shape_of(operand)[axis], int), rank, axis))
        parts.append(cut_up[0] if cut_up else none)
    if not any(layer.labels.any() for layer in parts):
        return [same.together(rest)]
    axes = frozenset().union(*(layer.axes for layer in parts))
    width = [max(layer.labels.shape[a] for layer in parts) for a in range(rank)]
    labels = [
        np.broadcast_to(x, [x.shape[a] if a == axis else width[a] for a in range(rank)])
        for x in (layer.labels for layer in parts)
    ]
    whole = Layer(axes, np.concatenate(labels, axis=axis))
    return [same.together([[whole], *rest])]


def _broadcast(same: Joined, equation: JaxprEqn, inputs: list[Value]) -> list[Value]:
    new = equation.params["shape"]
    places = dict(enumerate(equation.params["broadcast_dimensions"]))
    return [stretched([moved(layer, places, len(new)) for layer in inputs[0]], new)]


def _reshape(same: Joined, equation: JaxprEqn, inputs: list[Value]) -> list[Value]:
    old, new = shape_of(equation.invars[0]), shape_of(equation.outvars[0])
    return [[part for layer in inputs[0] for part in reshaped(layer, old, new)]]


def _transpose(same: Joined, equation: JaxprEqn, inputs: list[Value]) -> list[Value]:
    order = equation.params["permutation"]
    places = {axis: i for i, axis in enumerate(order)}
    return [[moved(layer, places, len(order)) for layer in inputs[0]]]


def _slice(same: Joined, equation: JaxprEqn, inputs: list[Value]) -> list[Value]:
    p = equation.params
    strides = p["strides"] or [1] * len(p["start_indices"])
    bounds = list(zip(p["start_indices"], p["limit_indices"], strides, strict=True))
    return [[cut(layer, [slice(*bound) for bound in bounds]) for layer in inputs[0]]]


def _split(same: Joined, equation: JaxprEqn, inputs: list[Value]) -> list[Value]:
    axis, start, results = equation.params["axis"], 0, []
    rank = len(shape_of(equation.invars[0]))
    for size in equation.params["sizes"]:
        part = [slice(start, start + size) if a == axis else slice(None) for a in range(rank)]
        results.append([cut(layer, part) for layer in inputs[0]])
        start += size
    return results


def _dynamic_slice(same: Joined, equation: JaxprEqn, inputs: list[Value]) -> list[Value]:
    old, sizes = shape_of(equation.invars[0]), equation.params["slice_sizes"]
    return [[layer for layer in inputs[0] if all(old[a] == sizes[a] for a in layer.axes)]]


def _stack(same: Joined, equation: JaxprEqn, inputs: list[Value]) -> list[Value]:
    """Side by side along a new axis, which holds no channels."""
    rank, axis = len(shape_of(equation.outvars[0])), equation.params["axis"]
    places = {old: old + (old >= axis) for old in range(rank - 1)}
    return [same.together([[moved(layer, places, rank) for layer in v] for v in inputs])]


def _pad(same: Joined, equation: JaxprEqn, inputs: list[Value]) -> list[Value]:
    return [padded(inputs[0], equation.params["padding_config"])]


def _select(same: Joined, equation: JaxprEqn, inputs: list[Value]) -> list[Value]:
    return [same.together(inputs[1:])]


Rule = Callable[[Joined, JaxprEqn, list[Value]], list[Value]]

RULES: dict[str, Rule] = {
    "dot_general": _product,
    "concatenate": _concatenation,
    "stack": _stack,
    "broadcast_in_dim": _broadcast,
    "reshape": _reshape,
    "squeeze": _reshape,
    "expand_dims": _reshape,
    "transpose": _transpose,
    "slice": _slice,
    "split": _split,
    "dynamic_slice": _dynamic_slice,
    "pad": _pad,
    "select_n": _select,
}
