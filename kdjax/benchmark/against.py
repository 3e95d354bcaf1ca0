"""A training step beside the same in another framework, on the same device."""

import dataclasses
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from typing import Any, Literal

import jax

from kdjax.benchmark.measure import Timing
from kdjax.benchmark.parts import Program, step_program
from kdjax.benchmark.subject import Subject
from kdjax.experiment import Data, Fit

Framework = Literal["torch"]
OURS = "kdjax"


@dataclass(frozen=True)
class Rivals:
    """Programs that take turns, ours among them."""

    about: str
    """Version, device, threads."""
    programs: dict[str, Program]
    left_out: dict[str, str]
    """Forms that do not run here, and why."""


def check_against(subject: Subject, framework: Framework) -> None:
    """ValueError for what can be known before anything is measured."""
    if find_spec(framework) is None:
        raise ValueError(
            f"--against {framework}: it is not installed; pip install 'kdjax[{framework}]'."
        )
    if subject.devices.count > 1:
        raise ValueError(
            f"--against {framework} compares one device, not {subject.devices.count}; "
            "add --runtime.devices 1."
        )


def rivals(subject: Subject, framework: Framework) -> Rivals:
    """Our step and theirs, with nothing but networks, losses and optimizer in them.

    Both step through one batch over and over, without augmentation, averages of weights,
    accumulation or clipping. ValueError for a network or a loss that is not written for them.
    """
    check_against(subject, framework)
    from kdjax.benchmark import torch_step

    bare = _bare(subject)
    programs: dict[str, Program] = {OURS: step_program(bare, subject.fixed, bare.batch())}
    left_out: dict[str, str] = {}
    about = torch_step.set_up()
    for form in torch_step.FORMS:
        step = torch_step.make_step(bare, form)
        try:
            jax.block_until_ready(step())
        except Exception as error:  # a compiler that is not there says so in many ways
            left_out[form] = f"{type(error).__name__}: {error}".splitlines()[0][:200]
        else:
            programs[f"{framework} {form}"] = step
    return Rivals(about, programs, left_out)


def compared(found: Rivals, timings: Mapping[str, Timing]) -> dict[str, Any]:
    """Of each rival: its time, and how many of our steps fit into it (above 1: ours is faster)."""
    ours = timings[OURS]
    return {
        "about": found.about,
        "timings": {name: asdict(timings[name]) for name in found.programs},
        "ours_faster": {
            name: timings[name].seconds / ours.seconds for name in found.programs if name != OURS
        },
        "ours_faster_processor": {
            name: timings[name].processor / ours.processor
            for name in found.programs
            if name != OURS
        },
        "left_out": found.left_out,
    }


def _bare(subject: Subject) -> Subject:
    run = subject.run
    fit = Fit(batch_size=run.fit.batch_size, optimizer=run.fit.optimizer, schedule=run.fit.schedule)
    data = Data(name=run.data.name, augment=())
    return dataclasses.replace(subject, run=dataclasses.replace(run, data=data, fit=fit))
