"""Curriculum temperature: soft targets at a temperature learned against the student."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax.losses import CTKD, Ramp, SoftTarget
from tests.losses.contract import Spec, contract
from tests.losses.formulas import divergence
from tests.losses.support import LABELS, agree, example, value


def formula(loss, student, teacher, labels, own):
    """The temperature's own slope is reversed: what moves counts negatively, what is held stays."""
    strength = loss.strength
    if isinstance(strength, Ramp):
        strength = (1 - np.cos(np.pi / strength.epochs)) / 2  # all are in epoch 0, the authors' 1
    held = own["temperature held"]
    x = held - strength * (own["temperature"] - held)
    temperature = loss.start + loss.extent / (1 + np.exp(-x))
    return divergence(teacher["logits"], student["logits"], temperature)


TestCTKD = contract(
    Spec(
        CTKD,
        formula,
        cases={
            "default": CTKD(),
            "in_full": CTKD(start=2.0, extent=5.0, strength=1.0),
        },
        other_values={"start": 2.0, "extent": 10.0, "strength": 1.0},
        slopes_only=("strength",),
    )
)


def slope_of_temperature(loss, epoch, x=1.0):
    student, teacher, batch = example()
    batch = batch._replace(epoch=jnp.full_like(batch.epoch, epoch))
    return jax.grad(lambda x: value(loss, student, teacher, batch, {"temperature": x}).sum())(x)


def test_the_reversal_grows_along_a_cosine():
    """As the authors' table: 0.5 after five of ten epochs, counted from 1; then 1."""
    full = slope_of_temperature(CTKD(strength=1.0), 0)
    shares = [slope_of_temperature(CTKD(), epoch) / full for epoch in (0, 4, 9, 100)]
    agree(shares, [(1 - np.cos(np.pi / 10)) / 2, 0.5, 1.0, 1.0])
    assert slope_of_temperature(CTKD(strength=0.0), 0) == 0


def test_it_starts_as_soft_targets_at_15_6():
    student, teacher, batch = example()
    variables = CTKD().init(jax.random.key(0), student, teacher, batch)
    start = SoftTarget(temperature=1 + 20 / (1 + np.exp(-1.0)))
    agree(CTKD().apply(variables, student, teacher, batch), value(start, student, teacher, batch))


def test_the_adversary_raises_the_loss_while_the_student_lowers_it():
    student, teacher, _ = example()
    student, teacher = (jax.tree.map(lambda x: x[:3], out) for out in (student, teacher))
    loss = CTKD(strength=1.0)

    def total(x):
        return loss.apply({"params": {"temperature": x}}, student, teacher, LABELS).sum()

    x = jnp.array(1.0)
    assert total(x - 1e-3 * jax.grad(total)(x)) > total(x)


@pytest.mark.parametrize(
    ("field", "value", "remedy"),
    [
        ("start", 0.0, "positive"),
        ("extent", 0.0, "positive"),
        ("strength", -1.0, "at least 0"),
        ("strength", Ramp(start=-1.0), "at least 0"),
    ],
)
def test_fields_that_cannot_work(field, value, remedy):
    with pytest.raises(ValueError, match=f"^{field}: .* cannot work; it must be {remedy}"):
        CTKD(**{field: value}).check()
