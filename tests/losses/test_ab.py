"""Activation boundaries: on the teacher's side of zero, by a margin."""

import numpy as np
import pytest
from hypothesis import given

from kdjax.losses import AB
from tests.losses.contract import Spec, contract
from tests.losses.formulas import batch_norm, conv, pool_to_common
from tests.losses.support import LABELS, example, law, maps, says, value


def formula(loss, student, teacher, labels, own):
    ours = loss.stages or ("stage1", "stage2")
    pairs = list(zip(ours, loss.teacher_stages or ours, strict=True))
    m, total = loss.margin, 0
    for i, (a, b) in enumerate(pairs):
        s = student.get(f"before/{a}", student[a])
        t = teacher.get(f"before/{b}", teacher[b])
        s, t = pool_to_common(s, t)
        if s.shape[-1] != t.shape[-1]:
            layer = f"connector_{a}"
            s = conv(s, own[f"{layer}/conv/kernel"])
            s = batch_norm(s, own[f"{layer}/bn/scale"], own[f"{layer}/bn/bias"])
        off = (s + m) ** 2 * ((s > -m) & (t <= 0))
        on = (s - m) ** 2 * ((s <= m) & (t > 0))
        total += (off + on).sum(axis=(1, 2, 3)) * 2.0 ** (i - len(pairs) + 1)
    return total / 1000 * 3


TestAB = contract(
    Spec(
        AB,
        formula,
        cases={
            "default": AB(),
            "same_widths": AB(stages=("flat",), margin=0.5),
            "other_sizes": AB(
                stages=("stage2", "odd", "stage1"), teacher_stages=("double", "odd", "half")
            ),
        },
        other_values={
            "stages": ("stage2", "flat"),
            "teacher_stages": ("half", "flat"),
            "margin": 2.0,
            "sync_batch_norm": False,
        },
        before_relu=lambda loss: True,
        teaches=False,  # it looks at signs only
    )
)


@law
@given(maps, maps)
def test_ab_sees_no_more_of_the_teacher_than_which_neurons_are_active(f_s, f_t):
    loss = AB(stages=("flat",))
    plain = value(loss, says(stage=f_s), says(stage=f_t), LABELS)
    signs = value(loss, says(stage=f_s), says(stage=(f_t > 0).astype(np.float32)), LABELS)
    np.testing.assert_array_equal(plain, signs)
    assert plain.min() >= 0


@law
@given(maps)
def test_ab_is_zero_beyond_the_margin_and_not_within(f_t):
    loss, side = AB(stages=("flat",)), np.where(f_t > 0, 1, -1).astype(np.float32)
    for distance, expected in ((5, 0), (1, 0), (0.5, 0.25), (0, 1), (-1, 4)):
        values = value(loss, says(stage=distance * side), says(stage=f_t), LABELS)
        np.testing.assert_allclose(values, 3 / 1000 * expected * f_t[0].size, rtol=1e-6)


def test_ab_reads_the_features_of_stages_without_a_relu():
    student, teacher, batch = example()
    other = {**teacher.preactivations, "flat": -teacher.features["flat"]}
    moved = teacher._replace(preactivations=other)
    loss = AB(stages=("flat",))
    bare = tuple(out._replace(preactivations={}) for out in (student, teacher))
    as_features = tuple(out._replace(preactivations=out.features) for out in (student, teacher))
    np.testing.assert_array_equal(value(loss, *bare, batch), value(loss, *as_features, batch))
    assert (value(loss, student, moved, batch) != value(loss, student, teacher, batch)).all()


def test_the_margin_is_positive():
    with pytest.raises(ValueError, match=r"^margin: 0.0 cannot work; it must be positive"):
        AB(margin=0.0).check()
