"""Factor transfer: the teacher's map in other words, and the student's translation of it."""

import numpy as np
import pytest

from kdjax.losses import FT, Paraphraser
from tests.losses.contract import Spec, contract
from tests.losses.formulas import batch_norm, conv, pool_to_common, unit


def stack(x, own, name, held=""):
    for i in range(3):
        x = conv(
            x, own[f"{name}/conv{i}/kernel{held}"], own[f"{name}/conv{i}/bias{held}"], 1, (1, 1)
        )
        if f"{name}/bn{i}/scale" in own:
            x = batch_norm(x, own[f"{name}/bn{i}/scale"], own[f"{name}/bn{i}/bias"])
        x = np.where(x > 0, x, 0.1 * x)
    return x


def maps(loss, student, teacher):
    ours = loss.stage or "stage2"
    return student[ours], teacher[loss.teacher_stage or ours]


def autoencoder(loss, student, teacher, labels, own):
    _, f_t = maps(loss, student, teacher)
    decoded = stack(stack(f_t, own, "paraphraser"), own, "decoder")
    return np.mean((decoded - f_t) ** 2, axis=(1, 2, 3))


def formula(loss, student, teacher, labels, own):
    f_s, f_t = maps(loss, student, teacher)
    factors = stack(f_s, own, "translator"), stack(f_t, own, "paraphraser", " held")
    n_s, n_t = (
        unit(
            np.mean(np.abs(f) ** loss.p1, axis=-1).reshape(len(f), -1)
            if loss.variant == "code"
            else f.reshape(len(f), -1)
        )
        for f in pool_to_common(*factors)
    )
    return np.mean(np.abs(n_s - n_t) ** loss.p2, axis=-1)


TestParaphraser = contract(
    Spec(
        Paraphraser,
        autoencoder,
        cases={"default": Paraphraser(), "other_stage": Paraphraser("stage1", "half", rate=1.0)},
        other_values={"stage": "stage1", "teacher_stage": "half", "rate": 1.0},
    )
)

TestFT = contract(
    Spec(
        FT,
        formula,
        talks=True,
        cases={
            "code": FT(),
            "paper": FT(stage="stage1", variant="paper"),
            "other_sizes": FT(stage="stage1", teacher_stage="half", p1=3.0, p2=2.0, rate=1.0),
        },
        other_values={
            "stage": "stage1",
            "teacher_stage": "half",
            "rate": 1.0,
            "p1": 3.0,
            "p2": 2.0,
            "variant": "paper",
            "sync_batch_norm": False,
        },
        flat=tuple(f"translator/conv{i}/bias" for i in range(3)),
        nearly_flat=("translator/bn2/scale",),  # factors are normalised
        teaches=False,
    )
)


@pytest.mark.parametrize(("field", "wrong"), [("rate", 0.0), ("p1", 0.5), ("p2", 0.5)])
def test_rules_of_the_fields(field, wrong):
    with pytest.raises(ValueError, match=f"^{field}: {wrong} cannot work; it must be"):
        FT(**{field: wrong}).check()
