"""Which channels of a network belong together, read off its trace.

Two axes of two arrays hold the same channels where the forward pass adds or multiplies them
element by element, or contracts one with the other. Following the labels of channels through the
jaxpr finds all such places, whatever the network: residual streams, depthwise convolutions,
squeeze-and-excite gates, concatenations, shuffles, zero padding, flattened maps. Nothing is
computed and no family is known. Channels that are summed with some of the others, and apart from
the rest, are those of the groups of a group norm.
"""

import functools
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal

from kdjax.models.base import VisionModel
from kdjax.models.summary import Shape, on_any_platform, shape_of
from kdjax.students.joined import Joined
from kdjax.students.labels import Labels, Layer, Value, along, grouped, stacked, vector, without
from kdjax.students.operations import results

Path = tuple[str, ...]
"""Of an array among a network's variables: collection, layers, leaf."""


class Axis(NamedTuple):
    """One axis of one array; `group` counts the groups of a convolution, where it has several."""

    path: Path
    reads: bool
    """Whether the array reads these channels, or writes them."""
    group: int = 0
    part: int = 0
    """0 for all of it, and from 1 on what lies in each group of a group norm."""


BODIES = ("call_jaxpr", "jaxpr", "fun_jaxpr")
"""Where an operation keeps the jaxpr it stands for."""
LOOPS = ("while", "cond")
"""Operations whose bodies do not take their arguments one to one: channels end there."""


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
    classes = {label for layer in logits for label in trace.same.roots(layer.labels).flat}
    found = {axis: trace.same.roots(labels) for axis, labels in trace.found.items()}
    written = {x for axis, labels in found.items() if not axis.reads for x in labels.flat}
    whole = {axis: x for axis, x in found.items() if {*x.flat} <= written - classes}
    return whole | _parts(whole, [trace.same.roots(rows) for rows in trace.normalised])


def _parts(whole: Mapping[Axis, Labels], norms: Sequence[Labels]) -> dict[Axis, Labels]:
    """What of each axis lies in which groups, of every group norm that its channels go through."""
    places: dict[int, list[tuple[int, int]]] = defaultdict(list)
    for norm, rows in enumerate(norms):
        for group, row in enumerate(rows):
            for label in row.tolist():
                places[label].append((norm, group))
    found: dict[Axis, Labels] = {}
    for axis, labels in whole.items():
        own = [tuple(places[label]) for label in labels.tolist()]
        kinds = list(dict.fromkeys(own))
        if len(kinds) > 1:
            for part, kind in enumerate(kinds, start=1):
                found[axis._replace(part=part)] = labels[[x == kind for x in own]]
    return found


def group_counts(model: VisionModel, shape: Shape) -> dict[Path, int]:
    """Groups of every convolution that has several and is not depthwise."""
    found = channels(model, shape)
    counts: dict[Path, int] = {}
    for axis in found:
        counts[axis.path] = max(counts.get(axis.path, 0), axis.group + 1)
    return {path: count for path, count in counts.items() if count > 1}


class _Trace:
    """One pass over a jaxpr: labels of the network's own arrays, and where they meet."""

    def __init__(self, whole_groups: frozenset[Path]) -> None:
        self.found: dict[Axis, Labels] = {}
        self.same = Joined()
        self._whole_groups = whole_groups
        self._owner: dict[int, Path] = {}
        """The array whose axis a fresh label was made for."""
        self.normalised: list[Labels] = []
        """Of each group norm the channels, a row a group."""

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
        labels = self.same.fresh(size)
        self.found[axis] = labels
        self._owner[int(labels[0])] = axis.path
        return Layer(frozenset({position}), along(labels, rank, position))

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
        if name == "conv_general_dilated":
            return [self._convolution(equation, inputs)]
        if name == "scan":
            return self._scan(equation, inputs)
        if name == "reduce_sum":
            self.normalised += grouped(inputs[0], equation.params["axes"])
        if (plain := on_any_platform(equation)) is not None:
            return self.run(plain, inputs[1:])  # the first says which platform
        body = next((equation.params[k] for k in BODIES if k in equation.params), None)
        if body is not None and name not in LOOPS:
            return self.run(body, inputs)
        return results(self.same, equation, inputs)

    def _convolution(self, equation: JaxprEqn, inputs: list[Value]) -> Value:
        numbers = equation.params["dimension_numbers"]
        groups = equation.params["feature_group_count"]
        rank = len(numbers.lhs_spec)
        size = shape_of(equation.invars[0])[numbers.lhs_spec[1]]
        image = vector(inputs[0], numbers.lhs_spec[1], size)
        reads = vector(inputs[1], numbers.rhs_spec[1], size // groups)
        out = shape_of(equation.outvars[0])[numbers.out_spec[1]]
        writes = vector(inputs[1], numbers.rhs_spec[0], out)
        if groups == 1 and self._owner.get(int(reads[0])) not in self._whole_groups:
            self.same.join(image, reads)
        else:
            self._grouped(image.reshape(groups, -1), reads, writes.reshape(groups, -1))
        feature = numbers.out_spec[1]
        return [Layer(frozenset({feature}), along(writes, rank, feature))]

    def _grouped(self, image: Labels, reads: Labels, writes: Labels) -> None:
        """One row a group. Depthwise, or cut by whole groups: what is read and written is one."""
        path = self._owner.get(int(reads[0]))
        if image.shape[1] == writes.shape[1] == 1 or path in self._whole_groups:
            first = np.where(image[:, :1] == 0, writes[:, :1], image[:, :1])
            self.same.join(first, image)
            self.same.join(first, writes)
        elif path is not None:
            for group, (read, written) in enumerate(zip(image, writes, strict=True)):
                self.found[Axis(path, True, group)] = read
                self.found[Axis(path, False, group)] = written

    def _scan(self, equation: JaxprEqn, inputs: list[Value]) -> list[Value]:
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
            carry = [self.same.together(pair) for pair in pairs]
        return [*carry, *(stacked(value) for value in results[carried:])]


def _alike(outside: Sequence[Any], inside: Sequence[Any]) -> int:
    """How many of a loop's arguments or results are the same outside and in each turn."""
    return sum(shape_of(a) == shape_of(b) for a, b in zip(outside, inside, strict=True))
