"""Correlation congruence, as benchmarked: gaps of one example times those of the next."""

from itertools import pairwise

import numpy as np
import pytest

from kdjax.losses import CC
from kdjax.objective import Term
from tests.losses.contract import Spec, contract


def formula(loss, student, teacher, labels, own):
    gaps = []
    for e_s, e_t in zip(student["embedding"], teacher["embedding"], strict=True):
        ours = e_s @ own["student/kernel"] + own["student/bias"]
        theirs = e_t @ own["teacher/kernel"] + own["teacher/bias"]
        assert len(ours) == loss.width
        gaps.append(np.abs(ours - theirs))
    return np.mean([a @ b for a, b in pairwise(gaps)])


TestCC = contract(
    Spec(
        CC,
        formula,
        cases={"default": CC(), "narrow": CC(width=3)},
        other_values={"width": 16},
        reads=("embedding",),
        training=Term(CC(), 0.02),
    )
)


def test_a_width_of_nothing_is_refused():
    with pytest.raises(ValueError, match=r"^width: 0 cannot work; it must be at least 1"):
        CC(width=0).check()
