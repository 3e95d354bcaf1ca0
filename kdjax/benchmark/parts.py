"""A training step and its parts as programs of their own."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from kdjax.benchmark.subject import Subject
from kdjax.cache.answers import record
from kdjax.cache.store import from_records
from kdjax.data.augment import augment
from kdjax.experiment import Cache
from kdjax.models import Draws, infer, learn
from kdjax.training.state import Fixed, TrainState, pack
from kdjax.training.step import make_train_step
from kdjax.types import AXIS, Batch

Program = Callable[[], Any]


def programs(subject: Subject) -> dict[str, Program]:
    """The whole step, the step with answers from disk where that is possible, and parts of it."""
    found = {"step": step_program(subject, subject.fixed, subject.batch())}
    if _logits_do(subject):
        answers = _random_answers(subject)
        found["cached step"] = step_program(subject, Fixed(), subject.batch(answers=answers))
    for name, function in _parts(subject).items():
        found[name] = _call(subject, function)
    found["input"] = _input(subject)
    return found


def step_program(subject: Subject, fixed: Fixed, batch: Batch) -> Program:
    """The training step on one batch, over and over."""
    step = subject.devices.spread(make_train_step(subject.recipe), donate=True)
    state = subject.state()

    def program() -> Array:
        nonlocal state
        state, metrics = step(state, fixed, batch)
        return metrics

    return program


def cost(subject: Subject) -> Mapping[str, float]:
    """What XLA says of the compiled step: operations and bytes of one device."""
    step = subject.devices.spread(make_train_step(subject.recipe), donate=True)
    compiled = step.compile(subject.state(), subject.fixed, subject.batch())
    counted, held = compiled.cost_analysis(), compiled.memory_analysis()
    return {
        "flops": float(counted["flops"]),
        "bytes": float(counted["bytes accessed"]),
        "temporary_bytes": float(held.temp_size_in_bytes),
    }


def _logits_do(subject: Subject) -> bool:
    from kdjax.cache.reads import reads

    run, shape = subject.run, subject.info.shape
    needed = [
        reads(term.loss, run.model, subject.teacher, shape)
        for term in subject.recipe.terms
        if term.loss.needs_teacher
    ]
    return bool(needed) and all(fields <= {"logits"} for fields in needed)


def _random_answers(subject: Subject) -> dict[str, np.ndarray]:
    records = np.zeros(len(subject.rows), record(Cache(), subject.teacher.num_classes, 0))
    records["logits"] = np.random.default_rng(0).normal(size=records["logits"].shape)
    return from_records(records)


def _parts(subject: Subject) -> dict[str, Callable[[TrainState, Fixed, Batch], Any]]:
    run, teacher, seed = subject.run, subject.teacher, subject.run.seed

    def views(state: TrainState, fixed: Fixed, batch: Batch) -> Array:
        seen = augment(run.data.augment, seed, batch, views=run.data.views).image
        return jax.lax.pmean(seen.astype(jnp.float32).sum(), AXIS)

    def teaching(state: TrainState, fixed: Fixed, batch: Batch) -> Array:
        assert fixed.teacher is not None
        return jax.lax.pmean(infer(teacher, fixed.teacher, batch.image).logits.sum(), AXIS)

    def logits(params: Any, state: TrainState, batch: Batch) -> Array:
        variables = pack(params["student"], state.stats["student"], state.frozen)
        draws = Draws(jax.random.key(seed), batch.index, batch.view)
        outputs, _ = learn(run.model, variables, batch.image, draws)
        return jnp.square(outputs.logits).mean()

    def forward(state: TrainState, fixed: Fixed, batch: Batch) -> Array:
        return jax.lax.pmean(logits(state.params, state, batch), AXIS)

    def backward(state: TrainState, fixed: Fixed, batch: Batch) -> Any:
        gradients = jax.grad(logits)(state.params, state, batch)
        return jax.lax.pmean(gradients, AXIS)

    def update(state: TrainState, fixed: Fixed, batch: Batch) -> Any:
        moving = subject.recipe.stretch.moving(state.params)
        optimizer = subject.recipe.transform(state.params)
        extra = {"task": moving} if subject.recipe.optimizer.splits_task else {}
        updates, moments = optimizer.update(moving, state.optimizer, moving, **extra)
        return jax.tree.map(lambda x, u: x + u, moving, updates), moments

    return {
        "augmentation": views,
        "teacher": teaching,
        "student forward": forward,
        "student forward and backward": backward,
        "optimizer": update,
    }


def _call(subject: Subject, function: Callable[[TrainState, Fixed, Batch], Any]) -> Program:
    spread = subject.devices.spread(function, donate=False)
    arguments = subject.state(), subject.fixed, subject.batch()
    return lambda: spread(*arguments)


def _input(subject: Subject) -> Program:
    """Gathering, decoding where there is something to decode, and moving to the devices."""
    step = 0

    def program() -> Batch:
        nonlocal step
        step += 1
        return subject.devices.split(subject.stream.batch(step, subject.rows))

    return program
