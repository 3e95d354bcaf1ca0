"""Which stages of student and teacher are compared."""

import jax.numpy as jnp
import pytest

from kdjax.losses import AttentionTransfer, FitNet
from kdjax.models.stages import stages
from kdjax.types import Outputs


def seen(**sizes):
    """Outputs whose features have these heights and widths."""
    features = {name: jnp.zeros((1, size, size, 2)) for name, size in sizes.items()}
    return Outputs(jnp.zeros((1, 3)), features, jnp.zeros((1, 2)))


def test_stages_are_in_the_order_of_their_numbers():
    many = seen(stem=32, **{f"stage{i}": 32 - i for i in (10, 2, 1)}, class_head=1)
    assert stages(many) == ("stage1", "stage2", "stage10")
    assert stages(seen(low=4, high=16, middle=8)) == ("high", "middle", "low")


def test_as_many_stages_are_paired_in_order():
    student, teacher = seen(stage1=16, stage2=8), seen(stage1=32, stage2=16)
    taps = AttentionTransfer().taps(student, teacher)
    assert taps == (("stage1", "stage1"), ("stage2", "stage2"))


def test_other_numbers_of_stages_are_paired_by_resolution():
    three, four = (
        seen(stage1=32, stage2=16, stage3=8),
        seen(stage1=32, stage2=16, stage3=8, stage4=4),
    )
    loss = AttentionTransfer()
    pairs = (("stage1", "stage1"), ("stage2", "stage2"), ("stage3", "stage3"))
    assert loss.taps(three, four) == pairs
    assert loss.taps(four, three) == (*pairs, ("stage4", "stage3"))
    flat = seen(stage1=8, stage2=8, stage3=8, stage4=8)
    assert loss.taps(three, flat)[0] == ("stage1", "stage4"), "the deepest of equals"


def test_named_stages_are_taken_as_they_are():
    student, teacher = seen(a=8, b=4), seen(a=8, b=4, c=2)
    assert AttentionTransfer(stages=("a", "b")).taps(student, teacher) == (("a", "a"), ("b", "b"))
    other = AttentionTransfer(stages=("a", "b"), teacher_stages=("c", "b"))
    assert other.taps(student, teacher) == (("a", "c"), ("b", "b"))
    assert FitNet(stage="a").taps(student, teacher) == (("a", "a"),)
    assert FitNet(stage="a", teacher_stage="c").taps(student, teacher) == (("a", "c"),)
    assert FitNet(stage="").taps(student, teacher) == (("b", "b"),)


def test_as_many_stages_of_the_teacher_as_of_the_student():
    loss = AttentionTransfer(stages=("a", "b"), teacher_stages=("a",))
    with pytest.raises(ValueError, match="2 student stages but 1 teacher stages; give one teacher"):
        loss.taps(seen(a=8, b=4), seen(a=8))
