"""Proteus: embedding and patches of a teacher, without labels."""

import numpy as np
import pytest

from kdjax.losses import Proteus
from tests.losses.contract import Spec, contract
from tests.losses.formulas import pool_to_common


def formula(loss, student, teacher, labels, own):
    def head(x, name):
        mean, spread = x.mean(axis=-1, keepdims=True), x.var(axis=-1, keepdims=True)
        x = (x - mean) / np.sqrt(spread + 1e-5)
        x = x * own[f"{name}_norm/scale"] + own[f"{name}_norm/bias"]
        return x @ own[f"{name}_linear/kernel"] + own[f"{name}_linear/bias"]

    ours = loss.stage or "stage2"
    s, t = pool_to_common(student[ours], teacher[loss.teacher_stage or ours])
    token = (head(student["embedding"], "token") - teacher["embedding"]) ** 2
    patches = (head(s, "feature") - t) ** 2
    size = token.shape[1] + patches[0].size
    both = (token.sum(axis=1) + patches.sum(axis=(1, 2, 3))) / size
    return loss.token * token.mean(axis=1) + loss.feature * both


TestProteus = contract(
    Spec(
        Proteus,
        formula,
        cases={
            "default": Proteus(),
            "token_alone": Proteus(feature=0.0),
            "other_sizes": Proteus(stage="stage1", teacher_stage="half", token=0.5),
        },
        other_values={"stage": "stage1", "teacher_stage": "flat", "token": 2.0, "feature": 3.0},
        also_reads=("embedding",),
    )
)


@pytest.mark.parametrize("field", ["token", "feature"])
def test_a_negative_weight_is_refused(field):
    with pytest.raises(ValueError, match=rf"^{field}: -1.0 cannot work; it must be >= 0"):
        Proteus(**{field: -1.0}).check()
