"""Factor transfer: the teacher's map in other words, and the student's translation of it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax.losses import FT
from tests.losses.contract import Spec, contract
from tests.losses.formulas import batch_norm, conv, pool_to_common, unit
from tests.losses.support import agree, example, own_variables, value


def stack(x, own, name, held=""):
    for i in range(3):
        x = conv(
            x, own[f"{name}/conv{i}/kernel{held}"], own[f"{name}/conv{i}/bias{held}"], 1, (1, 1)
        )
        if f"{name}/bn{i}/scale" in own:
            x = batch_norm(x, own[f"{name}/bn{i}/scale"], own[f"{name}/bn{i}/bias"])
        x = np.where(x > 0, x, 0.1 * x)
    return x


def formula(loss, student, teacher, labels, own):
    """Of the first epoch, in which all examples of the contract are."""
    ours = loss.stage or "stage2"
    f_s, f_t = student[ours], teacher[loss.teacher_stage or ours]
    if loss.paraphrase_epochs > 0:
        decoded = stack(stack(f_t, own, "paraphraser"), own, "decoder")
        return np.mean((decoded - f_t) ** 2, axis=(1, 2, 3))
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


def after(**fields):
    return FT(paraphrase_epochs=0.0, **fields)


TestFT = contract(
    Spec(
        FT,
        formula,
        talks=True,
        cases={
            "paraphrasing": FT(),
            "code": after(),
            "paper": after(stage="stage1", variant="paper"),
            "other_sizes": after(stage="stage1", teacher_stage="half", p1=3.0, p2=2.0, rate=1.0),
        },
        other_values={
            "stage": "stage1",
            "teacher_stage": "half",
            "rate": 1.0,
            "paraphrase_epochs": 1.0,
            "p1": 3.0,
            "p2": 2.0,
            "variant": "paper",
            "sync_batch_norm": False,
        },
        changed=after(),
        alone=(FT(),),
        flat=tuple(f"translator/conv{i}/bias" for i in range(3)),
        nearly_flat=("translator/bn2/scale",),  # factors are normalised
    )
)


def test_each_example_goes_over_to_factors_in_its_own_epoch():
    """And then its value is none of the autoencoder's business, and the student's before."""
    loss = FT(stage="flat", paraphrase_epochs=30.0)
    student, teacher, batch = example()
    batch = batch._replace(epoch=jnp.array([0, 29, 30, 31]))

    def values(params):
        return value(loss, student, teacher, batch, params)

    params = own_variables(loss)["params"]
    first, then = (value(form, *example(), params) for form in (loss, after(stage="flat")))
    agree(values(params), jnp.concatenate([first[:2], then[2:]]))
    early, late = (
        jax.grad(lambda params, i=i: values(params)[i].sum())(params)
        for i in (slice(0, 2), slice(2, 4))
    )
    for slopes, moving in ((early, {"paraphraser", "decoder"}), (late, {"translator"})):
        assert {n for n, s in slopes.items() if any(map(jnp.any, jax.tree.leaves(s)))} == moving


@pytest.mark.parametrize(("field", "wrong"), [("rate", 0.0), ("p1", 0.5), ("p2", 0.5)])
def test_rules_of_the_fields(field, wrong):
    with pytest.raises(ValueError, match=f"^{field}: {wrong} cannot work; it must be"):
        FT(**{field: wrong}).check()
