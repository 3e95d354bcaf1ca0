"""What every loss must do. A file of tests describes one by a `Spec` and gets it all."""

import dataclasses
import functools
import importlib
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import tests.losses
from kdjax.experiment.objective import Term
from kdjax.losses import DistillationLoss
from kdjax.models import Model
from tests.losses.support import (
    EXAMPLES,
    RECTIFIED,
    STUDENT_MAPS,
    STUDENT_WIDTH,
    TEACHER_MAPS,
    TEACHER_WIDTH,
    agree,
    as_float64,
    batch_of,
    example,
    finite_differences,
    flat_float64,
    on_devices,
    outputs,
    own_variables,
    program_of,
    value,
)
from tests.support import TINY
from tests.training import first_and_last_values

Arrays = Mapping[str, np.ndarray]

MOST_SLOPES = 60
"""Of an array. A formula is slow, and a mistake is not in a few places alone."""


@dataclass(frozen=True)
class Spec:
    """A loss, and its formula in float64 NumPy, written down from the paper and not from ours."""

    kind: type[DistillationLoss]
    formula: Callable[..., np.ndarray]
    """`(loss, student, teacher, labels, own)`: the arrays by name, `logits`, `embedding` and the
    maps; in `own` the parameters by path, `teacher/…` and `memory/…`. One value an example, or a
    scalar. What moves while a slope is measured stands still under its name and ` held`."""
    cases: Mapping[str, DistillationLoss]
    """Everything it can do, the defaults first."""
    other_values: Mapping[str, Any] = field(default_factory=dict)
    """Another value for every field, one that changes the loss."""
    changed: DistillationLoss | None = None
    """The loss whose fields get them, if not the defaults, of which some do not count at first."""
    alone: tuple[DistillationLoss, ...] = ()
    """Cases that see each example alone though they have batch norm."""
    reads: tuple[str, ...] | Callable[[Any], tuple[str, ...]] = ("logits",)
    """What it reads of the student, or a case of it, if it has no taps."""
    before_relu: Callable[[Any], bool] = lambda loss: False
    """Whether it reads the student's preactivations of its taps, where there are any."""
    also_reads: tuple[str, ...] = ()
    """What it reads of the student beside its taps."""
    given: Mapping[str, Any] = field(default_factory=dict)
    """Fields without which it cannot work between the two networks of the example."""
    flat: tuple[str, ...] = ()
    """Parameters whose slope is zero, such as a bias before batch norm."""
    nearly_flat: tuple[str, ...] = ()
    """Parameters whose slope is the small rest of large ones: rounding differs by machine."""
    slopes_only: tuple[str, ...] = ()
    """Fields that change no value, only the slope by a parameter, such as that of an adversary."""
    every_day: bool = False
    """It is spread over devices and trained in the default suite too, and so on: one loss of each
    way to be part of the step."""
    talks: bool = False
    """To other devices, in code of its own: its batch norm is not that of other losses."""
    teaches: bool = True
    """Its value has a slope by the teacher's outputs."""
    training: Term | None = None
    """How it is trained alone, if not with its defaults and weight 1."""
    student: Model = TINY
    """What it is trained in."""


def specs() -> list[Spec]:
    """Of every loss: all files of tests are looked through."""
    found = []
    for module in pkgutil.iter_modules(tests.losses.__path__, "tests.losses."):
        if module.name.startswith("tests.losses.test_"):
            loaded = importlib.import_module(module.name)
            found += [v.spec for k, v in vars(loaded).items() if k.startswith("Test")]
    return found


def value_and_formula(spec: Spec, loss: DistillationLoss) -> tuple[np.ndarray, np.ndarray]:
    """Ours, and what the formula says."""
    formula, _, params = _formula(spec, loss)
    return np.asarray(measured(loss, *example()).values), formula({}, params)


def slopes_and_formula(
    spec: Spec, loss: DistillationLoss
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """By all that the loss reads of the student, and by its parameters: ours, and the formula's."""
    formula, s, params = _formula(spec, loss)
    weights, found = weights_of(loss), measured(loss, *example())
    ours, ours_own = as_float64(found.by_student), flat_float64(found.by_params)
    read = _read_by(spec, loss)
    for name in ours.keys() - read:
        assert not ours[name].any(), f"{name} has a slope: is it missing in reads?"
    slopes_of = functools.partial(finite_differences, most=MOST_SLOPES)
    expected = slopes_of(
        lambda moved: np.vdot(weights, formula(moved, params)), {n: s[n] for n in read}
    )
    moving = {name: array for name, array in params.items() if name not in spec.flat}
    expected_own = slopes_of(
        lambda moved: np.vdot(weights, formula({}, {**params, **moved})), moving
    )
    both = [(ours, expected), (ours_own, expected_own)]
    pairs = {name: (mine[name], slope) for mine, slopes in both for name, slope in slopes.items()}
    return {name: (mine[~np.isnan(x)], x[~np.isnan(x)]) for name, (mine, x) in pairs.items()}


class Measured(NamedTuple):
    """Of a loss: its values, those of two examples alone, and the slopes of a weighted sum."""

    values: Any
    of_some: Any
    by_student: Any
    by_params: Any


def measured(loss, student, teacher, batch) -> Measured:
    """In one program for all who ask: tracing and compiling take far longer than running."""
    params = own_variables(loss).get("params", {})
    return _measured(loss, student, teacher, batch, params)


@functools.partial(jax.jit, static_argnums=0)
def _measured(loss, student, teacher, batch, params):
    def total(student, params):
        values = value(loss, student, teacher, batch, params)
        return jnp.vdot(values, weights_of(loss, values.size)), values

    slopes, values = jax.grad(total, argnums=(0, 1), has_aux=True)(student, params)
    if loss.whole_batch or len(values) < EXAMPLES:
        return Measured(values, None, *slopes)
    some = jax.tree.map(lambda x: x[1:3], (student, teacher, batch))
    return Measured(values, value(loss, *some, params), *slopes)


def weights_of(loss, examples=EXAMPLES):
    """What the values count in the sum: each something else."""
    return np.array(1.0) if loss.whole_batch else np.array([1.0, -2.0, 0.5, 3.0])[:examples]


def _read_by(spec, loss):
    taps = loss.taps(*example()[:2]) if spec.kind.needs_teacher else ()
    untapped = spec.reads(loss) if callable(spec.reads) else spec.reads
    read = ({ours for ours, _ in taps} or set(untapped)) | set(spec.also_reads)
    if spec.before_relu(loss):
        return {f"before/{name}" if name in RECTIFIED else name for name in read}
    return read


def _formula(spec, loss):
    """The formula with all but the student's outputs and the parameters filled in."""
    student, teacher, batch = example()
    variables = own_variables(loss)
    fixed = {}
    for collection in ("teacher", "memory", "batch_stats"):
        fixed |= flat_float64(variables.get(collection, {}), f"{collection}/")
    s, t = as_float64(student), as_float64(teacher)
    params = flat_float64(variables.get("params", {}))
    # Where the gradient is measured, what the loss holds constant stands still.
    held = {f"{name} held": array for name, array in s.items()}
    fixed |= {f"{name} held": array for name, array in params.items()}

    def formula(moved, own):
        labels = np.asarray(batch.label)
        return spec.formula(loss, {**s, **held, **moved}, t, labels, {**fixed, **own})

    return formula, s, params


def contract(spec: Spec) -> type:
    """The tests, for a name that begins with `Test`."""
    kind = spec.kind
    default = next(iter(spec.cases.values()))
    every_case = pytest.mark.parametrize("loss", spec.cases.values(), ids=spec.cases)
    # The cases beyond the first are `slow` where they share all that could fail with it.
    first_case = pytest.mark.parametrize(
        "loss",
        [
            pytest.param(loss, id=name, marks=[pytest.mark.slow] if i else [])
            for i, (name, loss) in enumerate(spec.cases.items())
        ],
    )

    def every_day(test):
        return test if spec.every_day else pytest.mark.slow(test)

    def beyond_the_example(test):
        """What can go wrong only where a loss sees more than one example at a time."""
        sees_more = spec.every_day or spec.talks or kind.whole_batch
        return test if sees_more else pytest.mark.slow(test)

    class Contract:
        def test_the_first_case_are_the_defaults(self):
            assert default == kind(**spec.given)

        @every_case
        def test_value_is_the_formula(self, loss):
            agree(*value_and_formula(spec, loss))

        @every_case
        def test_gradient_is_the_slope_of_the_formula(self, loss):
            for name, (ours, expected) in slopes_and_formula(spec, loss).items():
                agree(ours, expected, 1e-3 if name in spec.nearly_flat else 5e-5)

        @every_case
        def test_float32_of_the_right_shape(self, loss):
            values = measured(loss, *example()).values
            assert values.shape == (() if kind.whole_batch else (EXAMPLES,))
            assert values.dtype == jnp.float32

        @first_case
        def test_bfloat16_features_are_computed_with_in_float32(self, loss):
            def through(dtype, out):
                turned = jax.tree.map(lambda x: x.astype("bfloat16").astype(dtype), out)
                return turned._replace(logits=out.logits)

            student, teacher, batch = example()
            short, long = (
                value(loss, through(dtype, student), through(dtype, teacher), batch)
                for dtype in ("bfloat16", "float32")
            )
            assert short.dtype == jnp.float32
            agree(short, long, tolerance=1e-6)

        @beyond_the_example
        def test_the_number_of_devices_changes_nothing(self):
            # Sums in another order: what little is left of a kernel's before batch norm differs
            # by 1e-5 of it, and a device that was forgotten by as much as there is.
            close = functools.partial(agree, tolerance=1e-4)
            few, one = (on_devices(default, devices, spec.flat) for devices in (4, 1))
            jax.tree.map(close, few, one)

        @every_case
        def test_who_sees_whom(self, loss):
            """Only a loss of the whole batch, or one with batch norm, looks beyond the example."""
            whole, part, *_ = measured(loss, *example())
            if kind.whole_batch:
                return
            if "batch_stats" in own_variables(loss) and loss not in spec.alone:
                assert not np.allclose(part, whole[1:3], rtol=1e-3)
            else:
                agree(part, whole[1:3])

        def test_it_says_whether_it_reads_the_label(self):
            student, teacher, batch = example()
            label = (batch.label + 1) % student.logits.shape[-1]
            label = label.at[0].set(label[1])  # some equal ones become different, and back
            moved = [
                not np.allclose(
                    measured(loss, student, teacher, batch).values,
                    measured(loss, student, teacher, batch._replace(label=label)).values,
                    rtol=1e-6,
                )
                for loss in spec.cases.values()
            ]
            assert any(moved) == kind.needs_label

        def test_every_field_is_read(self):
            """Its program is another one."""
            fields = {f.name for f in dataclasses.fields(kind)} - {"parent", "name"}
            assert fields == set(spec.other_values), "give every field another value"
            base = spec.changed or default
            before = program_of(base)
            assert program_of(base.clone()) == before
            for name, other in spec.other_values.items():
                assert program_of(base.clone(**{name: other})) != before, name

        @pytest.mark.slow
        def test_no_field_is_dead(self):
            base = spec.changed or default
            before = value(base, *example(), None, 2)
            for name, other in spec.other_values.items():
                after = value(base.clone(**{name: other}), *example(), None, 2)
                changed = not np.allclose(after, before, rtol=1e-3)
                assert changed != (name in spec.slopes_only), name

        @every_day
        def test_a_stopped_teacher_gets_no_gradient_and_changes_none(self):
            student, teacher, batch = example()

            def objective(student, teacher, stop):
                teacher = jax.lax.stop_gradient(teacher) if stop else teacher
                return value(default, student, teacher, batch).sum()

            @jax.jit
            def both(student, teacher):
                slopes = jax.grad(objective, argnums=(0, 1))
                return slopes(student, teacher, True), slopes(student, teacher, False)

            (stopped, none), (running, some) = both(student, teacher)
            assert not any(jnp.any(leaf) for leaf in jax.tree.leaves(none))
            assert any(jnp.any(leaf) for leaf in jax.tree.leaves(some)) == (
                spec.teaches and kind.needs_teacher
            )
            # Two programs, so they may round differently.
            close = functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6)
            jax.tree.map(close, stopped, running)

        @first_case
        def test_extremes_stay_finite(self, loss):
            _check_extremes(loss, "float32")

        @pytest.mark.slow
        def test_extremes_in_bfloat16_stay_finite(self):
            _check_extremes(default, "bfloat16")

        @beyond_the_example
        @first_case
        def test_a_batch_of_one_stays_finite(self, loss):
            student, teacher, _ = example(1)
            _check_finite(loss, student, teacher, [0])

        def test_it_says_that_it_needs_a_teacher(self):
            student, _, batch = example()
            if kind.needs_teacher:
                message = f"{kind.__name__} needs a teacher, and this run has none"
                with pytest.raises(ValueError, match=message):
                    kind().init(
                        {"params": jax.random.key(0), "loss": jax.random.key(0)},
                        student,
                        None,
                        batch,
                    )
            else:
                agree(value(default, student, None, batch), value(default, *example()))

        @every_day
        def test_training_brings_it_down(self, digits):
            term = spec.training or Term(kind())
            first, last = first_and_last_values(digits, term, spec.student)
            assert last < 0.9 * first, (first, last)

    Contract.spec = spec
    return Contract


EXTREMES = {
    "zero": lambda x: 0 * x,
    "one_example_zero": lambda x: x * (np.arange(len(x)) > 0).reshape(-1, *[1] * (x.ndim - 1)),
    "equal_examples": lambda x: np.broadcast_to(x[:1], x.shape),
    "huge": lambda x: 1e4 * x / np.abs(x).max(),
    "huge_and_equal": lambda x: np.full(x.shape, 1e4),
    "sure": lambda x: np.where(x == x.max(axis=-1, keepdims=True), 1e4, -1e4),
    "tiny": lambda x: 1e-20 * x,
    "ordinary": lambda x: x,
}
"""What becomes of logits, maps and embeddings alike."""


def _extreme(make, out, dtype):
    turned = jax.tree.map(lambda x: jnp.asarray(make(np.asarray(x)), dtype), out)
    return turned._replace(logits=turned.logits.astype("float32"))


def _check_extremes(loss, dtype):
    drawn = {
        name: (
            _extreme(make, outputs(STUDENT_MAPS, STUDENT_WIDTH, 3), dtype),
            _extreme(make, outputs(TEACHER_MAPS, TEACHER_WIDTH, 4), dtype),
        )
        for name, make in EXTREMES.items()
    }
    pairs = [(name, "ordinary") for name in drawn] + [("ordinary", name) for name in drawn]
    for ours, theirs in pairs + [(name, name) for name in drawn]:
        _check_finite(loss, drawn[ours][0], drawn[theirs][1], np.arange(EXAMPLES))


def _check_finite(loss, student, teacher, labels):
    found = jax.device_get(measured(loss, student, teacher, batch_of(labels)))
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(found))
