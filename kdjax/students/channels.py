"""Which channels of a network belong together, read off its trace.

Two axes of two arrays hold the same channels where the forward pass adds or multiplies them
element by element, or contracts one with the other. Following the labels of channels through the
jaxpr finds all such places, whatever the network: residual streams, depthwise convolutions,
squeeze-and-excite gates, concatenations, shuffles, zero padding, flattened maps. Nothing is
computed and no family is known.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal

from kdjax.models.base import VisionModel
from kdjax.models.summary import Shape, on_any_platform
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
    stacked,
    stretched,
    vector,
    without,
)

Path = tuple[str, ...]
"""Of an array among a network's variables: collection, layers, leaf."""


class Axis(NamedTuple):
    """One axis of one array; `group` counts the groups of a convolution, where it has several."""

    path: Path
    reads: bool
    """Whether the array reads these channels, or writes them."""
    group: int = 0


POSITIONAL = frozenset({"sort", "rev", "cumsum", "cumprod", "cummax", "cummin", "cumlogsumexp"})
"""Operations that keep a shape and yet mix positions."""


@functools.lru_cache(maxsize=64)
def channels(
    model: VisionModel, shape: Shape, whole_groups: frozenset[Path] = frozenset()
) -> Mapping[Axis, Labels]:
    """The labels along every axis that holds channels; equal labels are one channel.

    Those of the image, which nothing writes, and classes are no channels: they are never cut.
    In a convolution of several groups the labels of `Axis.group` are those of one of them;
    kernels in `whole_groups` are cut by whole groups, so all channels of a group share one label.
    """
    key = jax.eval_shape(lambda: jax.random.key(0))
    # Two of them, since an axis of size 1 is the head of an attention that has but one.
    image = jax.ShapeDtypeStruct((2, *shape), jnp.uint8)
    variables = jax.eval_shape(model.init, key, image)
    jaxpr = jax.make_jaxpr(model.apply)(variables, image)
    leaves = jax.tree_util.tree_leaves_with_path(variables)
    paths = [tuple(part.key for part in path) for path, _ in leaves]
    trace = _Trace(whole_groups)
    arrays = map(trace.array, paths, [leaf.shape for _, leaf in leaves])
    logits, *_ = trace.run(jaxpr, [*arrays, []])  # the first of `Outputs`
    classes = {label for layer in logits for label in trace.roots(layer.labels).flat}
    found = {axis: trace.roots(labels) for axis, labels in trace.found.items()}
    written = {x for axis, labels in found.items() if not axis.reads for x in labels.flat}
    return {axis: x for axis, x in found.items() if {*x.flat} <= written - classes}


def group_counts(model: VisionModel, shape: Shape) -> dict[Path, int]:
    """Groups of every convolution that has several and is not depthwise."""
    found = channels(model, shape)
    counts: dict[Path, int] = {}
    for axis in found:
        counts[axis.path] = max(counts.get(axis.path, 0), axis.group + 1)
    return {path: count for path, count in counts.items() if count > 1}


class _Trace:
    """One pass over a jaxpr."""

    def __init__(self, whole_groups: frozenset[Path]) -> None:
        self.found: dict[Axis, Labels] = {}
        self._whole_groups = whole_groups
        self._parent = np.zeros(1, np.int64)
        self._owner: dict[int, Path] = {}
        """The array whose axis a fresh label was made for."""

    def array(self, path: Path, shape: tuple[int, ...]) -> Value:
        """Fresh labels for a network's own array: what it writes, and what a kernel reads."""
        rank = len(shape)
        if rank == 0:
            return []
        value = [self._axis(Axis(path, reads=False), rank, rank - 1, shape[-1])]
        if path[-1] == "kernel":
            value.append(self._axis(Axis(path, reads=True), rank, rank - 2, shape[-2]))
        return value

    def _axis(self, axis: Axis, rank: int, position: int, size: int) -> Layer:
        labels = self._fresh(size)
        self.found[axis] = labels
        self._owner[int(labels[0])] = axis.path
        return Layer(frozenset({position}), along(labels, rank, position))

    def _fresh(self, size: int) -> Labels:
        start = len(self._parent)
        labels = np.arange(start, start + size)
        self._parent = np.concatenate([self._parent, labels])
        return labels

    def roots(self, labels: Labels) -> Labels:
        """The label that stands for each, after everything was joined."""
        while not np.array_equal(parents := self._parent[labels], labels):
            labels = parents
        return labels

    def join(self, a: Labels, b: Labels) -> None:
        """Make these channels the same, pair by pair; nothing is the same as no channel."""
        a, b = np.broadcast_arrays(self.roots(a), self.roots(b))
        differ = (a != b) & (a != 0) & (b != 0)
        for pair in np.unique(np.stack([a[differ], b[differ]], axis=-1), axis=0):
            now = self.roots(pair)  # earlier pairs may have joined them
            self._parent[now.max()] = now.min()

    def run(self, closed: ClosedJaxpr | Jaxpr, inputs: Sequence[Value]) -> list[Value]:
        """Labels of the results, from those of the arguments."""
        jaxpr = closed.jaxpr if isinstance(closed, ClosedJaxpr) else closed
        values: dict[Any, Value] = dict(zip(jaxpr.invars, inputs, strict=True))

        def read(atom: Any) -> Value:
            return [] if isinstance(atom, Literal) else values.get(atom, [])

        for equation in jaxpr.eqns:
            results = self._apply(equation, [read(atom) for atom in equation.invars])
            values.update(zip(equation.outvars, results, strict=True))
        return [read(atom) for atom in jaxpr.outvars]

    def _apply(self, equation: JaxprEqn, inputs: list[Value]) -> list[Value]:
        name = equation.primitive.name
        if name in RULES:
            return RULES[name](self, equation, inputs)
        if (plain := on_any_platform(equation)) is not None:
            return self.run(plain, inputs[1:])  # the first says which platform
        body = next((equation.params[k] for k in BODIES if k in equation.params), None)
        if body is not None and name not in LOOPS:
            return self.run(body, inputs)
        if name.startswith("reduce_window"):
            return [_through_windows(equation, inputs[0])]
        if name.startswith("reduce_") or name in ("argmax", "argmin"):
            return [without(layers, equation.params["axes"]) for layers in inputs[:1]]
        out = _shape(equation.outvars[0])
        if name not in POSITIONAL and all(_fits(_shape(atom), out) for atom in equation.invars):
            return [self.together([stretched(value, out) for value in inputs])]
        return [[] for _ in equation.outvars]

    def together(self, inputs: Sequence[Value]) -> Value:
        """Element by element: channels along the same axes are the same channels."""
        result: Value = []
        for layer in [layer for value in inputs for layer in value]:
            for i, other in enumerate(result):
                if layer.axes & other.axes:
                    self.join(layer.labels, other.labels)
                    a, b = np.broadcast_arrays(other.labels, layer.labels)
                    result[i] = Layer(layer.axes | other.axes, np.where(a == 0, b, a))
                    break
            else:
                result.append(layer)
        return result

    def convolution(self, equation: JaxprEqn, inputs: list[Value]) -> list[Value]:
        numbers = equation.params["dimension_numbers"]
        groups = equation.params["feature_group_count"]
        rank = len(numbers.lhs_spec)
        size = _shape(equation.invars[0])[numbers.lhs_spec[1]]
        image = vector(inputs[0], numbers.lhs_spec[1], size)
        reads = vector(inputs[1], numbers.rhs_spec[1], size // groups)
        out = _shape(equation.outvars[0])[numbers.out_spec[1]]
        writes = vector(inputs[1], numbers.rhs_spec[0], out)
        if groups == 1 and self._owner.get(int(reads[0])) not in self._whole_groups:
            self.join(image, reads)
        else:
            self._grouped(image.reshape(groups, -1), reads, writes.reshape(groups, -1))
        feature = numbers.out_spec[1]
        return [[Layer(frozenset({feature}), along(writes, rank, feature))]]

    def _grouped(self, image: Labels, reads: Labels, writes: Labels) -> None:
        """One row a group. Depthwise, or cut by whole groups: what is read and written is one."""
        path = self._owner.get(int(reads[0]))
        if image.shape[1] == writes.shape[1] == 1 or path in self._whole_groups:
            first = np.where(image[:, :1] == 0, writes[:, :1], image[:, :1])
            self.join(first, image)
            self.join(first, writes)
        elif path is not None:
            for group, (read, written) in enumerate(zip(image, writes, strict=True)):
                self.found[Axis(path, True, group)] = read
                self.found[Axis(path, False, group)] = written

    def product(self, equation: JaxprEqn, inputs: list[Value]) -> list[Value]:
        (left, right), (left_batch, right_batch) = equation.params["dimension_numbers"]
        rank = len(_shape(equation.outvars[0]))
        for a, b in zip(left, right, strict=True):
            size = _shape(equation.invars[0])[a]
            self.join(vector(inputs[0], a, size), vector(inputs[1], b, size))
        heads = []
        for i, pair in enumerate(zip(left_batch, right_batch, strict=True)):
            size = _shape(equation.invars[0])[pair[0]]
            sides = [rows(value, axis, size) for value, axis in zip(inputs, pair, strict=True)]
            both = [*sides[0], *sides[1]]
            for row in both:  # one head of attention is kept or lost as a whole
                self.join(both[0][:, :1], row)
            heads += [[Layer(frozenset({i}), along(row[:, 0], rank, i))] for row in both[:1]]
        result: Value = []
        place = len(left_batch)
        for side, gone, batch in ((0, left, left_batch), (1, right, right_batch)):
            ranks = len(_shape(equation.invars[side]))
            free = [axis for axis in range(ranks) if axis not in (*gone, *batch)]
            places = {axis: place + i for i, axis in enumerate(free)}
            places |= {axis: i for i, axis in enumerate(batch)}
            place += len(free)
            kept = [layer for layer in inputs[side] if layer.axes <= places.keys()]
            result += [moved(layer, places, rank) for layer in kept]
        return [self.together([*heads, *([layer] for layer in result)])]

    def scan(self, equation: JaxprEqn, inputs: list[Value]) -> list[Value]:
        """What a loop carries around is the same before and after each turn."""
        body = equation.params["jaxpr"]
        jaxpr = body.jaxpr if isinstance(body, ClosedJaxpr) else body
        # What is cut into turns, or stacked from them, has an axis more outside than inside; how
        # many arguments are of which kind is kept differently from version to version of JAX.
        whole = _alike(equation.invars, jaxpr.invars)
        carried = _alike(equation.outvars, jaxpr.outvars)
        consts = whole - carried
        first, carry = inputs[:consts], inputs[consts : consts + carried]
        slices = [without(value, [0]) for value in inputs[consts + carried :]]
        results: list[Value] = []
        for _ in range(carried + 1):  # by then labels went through all that is carried
            results = self.run(jaxpr, [*first, *carry, *slices])
            pairs = zip(carry, results[:carried], strict=True)
            carry = [self.together(pair) for pair in pairs]
        return [*carry, *(stacked(value) for value in results[carried:])]

    def concatenation(self, equation: JaxprEqn, inputs: list[Value]) -> list[Value]:
        axis = equation.params["dimension"]
        rank = len(_shape(equation.outvars[0]))
        parts, rest = [], []
        for operand, value in zip(equation.invars, inputs, strict=True):
            cut_up = [layer for layer in value if axis in layer.axes]
            rest.append([layer for layer in value if axis not in layer.axes])
            none = Layer(frozenset({axis}), along(np.zeros(_shape(operand)[axis], int), rank, axis))
            parts.append(cut_up[0] if cut_up else none)
        if not any(layer.labels.any() for layer in parts):
            return [self.together(rest)]
        axes = frozenset().union(*(layer.axes for layer in parts))
        width = [max(layer.labels.shape[a] for layer in parts) for a in range(rank)]
        labels = [
            np.broadcast_to(x, [x.shape[a] if a == axis else width[a] for a in range(rank)])
            for x in (layer.labels for layer in parts)
        ]
        joined = Layer(axes, np.concatenate(labels, axis=axis))
        return [self.together([[joined], *rest])]


def _shape(variable: Any) -> tuple[int, ...]:
    return variable.aval.shape


def _alike(outside: Sequence[Any], inside: Sequence[Any]) -> int:
    """How many of a loop's arguments or results are the same outside and in each turn."""
    return sum(_shape(a) == _shape(b) for a, b in zip(outside, inside, strict=True))


def _through_windows(equation: JaxprEqn, value: Value) -> Value:
    window = equation.params["window_dimensions"]
    return [layer for layer in value if all(window[axis] == 1 for axis in layer.axes)]


def _fits(shape: Sequence[int], out: Sequence[int]) -> bool:
    """Whether NumPy would spread the one over the other."""
    same_rank = len(shape) == len(out)
    return not shape or (same_rank and all(a in (1, b) for a, b in zip(shape, out, strict=True)))


def _broadcast(trace: _Trace, equation: JaxprEqn, inputs: list[Value]) -> list[Value]:
    new = equation.params["shape"]
    places = dict(enumerate(equation.params["broadcast_dimensions"]))
    return [stretched([moved(layer, places, len(new)) for layer in inputs[0]], new)]


def _reshape(trace: _Trace, equation: JaxprEqn, inputs: list[Value]) -> list[Value]:
    old, new = _shape(equation.invars[0]), _shape(equation.outvars[0])
    return [[part for layer in inputs[0] for part in reshaped(layer, old, new)]]


def _transpose(trace: _Trace, equation: JaxprEqn, inputs: list[Value]) -> list[Value]:
    order = equation.params["permutation"]
    places = {axis: i for i, axis in enumerate(order)}
    return [[moved(layer, places, len(order)) for layer in inputs[0]]]


def _slice(trace: _Trace, equation: JaxprEqn, inputs: list[Value]) -> list[Value]:
    p = equation.params
    strides = p["strides"] or [1] * len(p["start_indices"])
    bounds = list(zip(p["start_indices"], p["limit_indices"], strides, strict=True))
    return [[cut(layer, [slice(*bound) for bound in bounds]) for layer in inputs[0]]]


def _split(trace: _Trace, equation: JaxprEqn, inputs: list[Value]) -> list[Value]:
    axis, start, results = equation.params["axis"], 0, []
    rank = len(_shape(equation.invars[0]))
    for size in equation.params["sizes"]:
        part = [slice(start, start + size) if a == axis else slice(None) for a in range(rank)]
        results.append([cut(layer, part) for layer in inputs[0]])
        start += size
    return results


def _dynamic_slice(trace: _Trace, equation: JaxprEqn, inputs: list[Value]) -> list[Value]:
    old, sizes = _shape(equation.invars[0]), equation.params["slice_sizes"]
    return [[layer for layer in inputs[0] if all(old[a] == sizes[a] for a in layer.axes)]]


def _stack(trace: _Trace, equation: JaxprEqn, inputs: list[Value]) -> list[Value]:
    """Side by side along a new axis, which holds no channels."""
    rank, axis = len(_shape(equation.outvars[0])), equation.params["axis"]
    places = {old: old + (old >= axis) for old in range(rank - 1)}
    return [trace.together([[moved(layer, places, rank) for layer in v] for v in inputs])]


def _pad(trace: _Trace, equation: JaxprEqn, inputs: list[Value]) -> list[Value]:
    return [padded(inputs[0], equation.params["padding_config"])]


def _select(trace: _Trace, equation: JaxprEqn, inputs: list[Value]) -> list[Value]:
    return [trace.together(inputs[1:])]


Rule = Callable[[_Trace, JaxprEqn, list[Value]], list[Value]]

BODIES = ("call_jaxpr", "jaxpr", "fun_jaxpr")
"""Where an operation keeps the jaxpr it stands for."""
LOOPS = ("while", "cond")
"""Operations whose bodies do not take their arguments one to one: channels end there."""

RULES: dict[str, Rule] = {
    "conv_general_dilated": _Trace.convolution,
    "dot_general": _Trace.product,
    "scan": _Trace.scan,
    "concatenate": _Trace.concatenation,
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
