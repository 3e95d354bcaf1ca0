"""Our losses beside what authors' code answered.

`python -m tests.authors.compare` prints a table.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict

from kdjax.types import AXIS, Batch, Outputs
from tests.authors.inputs import CLASSES, labels, outputs, thinned
from tests.authors.names import drawn, theirs, to_torch
from tests.authors.ours import OURS, Ours
from tests.authors.record import NUMBERS
from tests.authors.trajectories import TEACHERS, gaps
from tests.losses.support import KEY, batch_of, error, quickly_compiled

Arrays = dict[str, np.ndarray]


class Differences(NamedTuple):
    """The largest ones of a loss, each relative to the largest number of its array."""

    value: float
    by_student: float
    by_own: float
    """Zero where nothing is learned."""


def answered(name: str) -> tuple[Arrays, str]:
    """What `record` kept of a loss, and whose it is."""
    with np.load(NUMBERS / f"{OURS[name].theirs}.npz") as file:
        start = f"{name}/"
        kept = {key.removeprefix(start): file[key] for key in file if key.startswith(start)}
        return kept, str(file["origin"])


def differences(name: str) -> Differences:
    """Between ours and theirs. AssertionError where one has a slope that the other lacks."""
    ours, (expected, _) = OURS[name], answered(name)
    found = measured(ours, str(expected["teacher"]), int(expected["classes"]))
    slopes = {key for key in expected if key.startswith(("student/", "own/"))}
    slopes -= {f"own/{key}" for key in ours.flat}
    assert slopes <= found.keys(), f"{name}: theirs alone have {slopes - found.keys()}"
    more = {key for key in found.keys() - expected.keys() if key.startswith("student/")}
    assert not any(found[key].any() for key in more), f"{name}: ours alone have {more}"
    gaps = {key: error(found[key], expected[key]) for key in slopes}

    def largest(start: str) -> float:
        return max((gap for key, gap in gaps.items() if key.startswith(start)), default=0.0)

    value = 0.0 if ours.differs else error(found["value"], expected["value"])
    return Differences(value, largest("student/"), largest("own/"))


def measured(ours: Ours, teacher: str, classes: int = CLASSES) -> Arrays:
    """The same of ours as `side.measured` has of theirs, under their names."""
    variables = _variables(ours, teacher, classes)
    value, by_student, by_own = _measured(ours, teacher, classes, variables)
    found = {"value": np.asarray(value)}
    found |= {f"student/{name}": thinned(slope) for name, slope in by_student.items()}
    for path, slope in flatten_dict(by_own, sep="/").items():
        found[f"own/{theirs(ours, path)}"] = thinned(to_torch(ours, path, np.asarray(slope)))
    return found


def _measured(ours: Ours, teacher: str, classes: int, variables: Any) -> Any:
    @quickly_compiled
    @functools.partial(jax.value_and_grad, argnums=(0, 1))
    def mean(student: Any, params: Any) -> Any:
        own = {**variables, "params": params}

        def on_a_device(student: Any) -> Any:
            said = _outputs(student), _outputs(jax.tree.map(jnp.asarray, outputs(teacher, classes)))
            batch = _batch(ours, classes)
            return ours.loss.apply(own, *said, batch, rngs={"loss": KEY}, mutable=True)[0]

        alone = jax.tree.map(lambda x: x[None], student)
        return jax.vmap(on_a_device, axis_name=AXIS)(alone).mean()

    student = jax.tree.map(jnp.asarray, outputs("student", classes))
    value, slopes = mean(student, variables["params"])
    return value, *slopes


def _batch(ours: Ours, classes: int) -> Batch:
    found = labels(classes)
    return batch_of(np.zeros_like(found) if ours.one_class else found)


def _outputs(arrays: Any) -> Outputs:
    """As a network has them."""
    stages = {name: x for name, x in arrays.items() if name.startswith("stage")}
    before = {name.removeprefix("before/"): x for name, x in arrays.items() if "before/" in name}
    pooled = {"stage3": stages["stage3"]}
    return Outputs(arrays["logits"], stages, arrays["embedding"], before, pooled)


def _variables(ours: Ours, teacher: str, classes: int) -> dict[str, Any]:
    """The loss's own: parameters drawn by their names, and what is given."""
    said = (_outputs(outputs(who, classes)) for who in ("student", teacher))
    rngs = {"params": KEY, "loss": KEY}
    shapes = jax.eval_shape(ours.loss.init, rngs, *said, _batch(ours, classes))
    variables = {"params": drawn(ours, shapes.get("params", {})), **ours.given}
    if ours.loss.reads_classifier:
        width = outputs(teacher)["embedding"].shape[1]
        classifier = {"kernel": np.zeros((width, classes)), "bias": np.zeros(classes)}
        variables |= drawn(ours, {"teacher": classifier})
    return jax.tree.map(jnp.asarray, variables)


def main() -> None:
    """A row a loss, then one for each method of two stages."""
    print("| loss | code | value | by the student | by its own | |")
    print("| --- | --- | --- | --- | --- | --- |")
    for name, ours in OURS.items():
        found = (f"{gap:.0e}" if gap else "" for gap in differences(name))
        notes = "; ".join(filter(None, (ours.differs, ours.so_that)))
        print(
            f"| {name} | {_short(answered(name)[1])} | {' | '.join(found)} | {notes} |", flush=True
        )
    print("\n| ten steps | code | student | its own |")
    print("| --- | --- | --- | --- |")
    for method in TEACHERS:
        found = gaps(method)
        largest = (
            max((x for k, x in found.items() if part in k and "running_var" not in k), default=0.0)
            for part in ("/student/", "/own/")
        )
        columns = " | ".join(f"{x:.0e}" if x else "" for x in largest)
        print(f"| {method} | {_short(answered(method)[1])} | {columns} |", flush=True)


def _short(origin: str) -> str:
    repository, _, commit = origin.partition("@")
    return f"{repository} {commit[:7]}"


if __name__ == "__main__":
    main()
