"""Inter-channel correlation: which channels are alike."""

import jax.numpy as jnp
import numpy as np
from hypothesis import given

from kdjax.losses import ICKD
from kdjax.losses.ickd import correlation
from tests.losses.contract import Spec, contract
from tests.losses.formulas import batch_norm, conv, unit
from tests.losses.support import LABELS, law, maps, says, value


def formula(loss, student, teacher, labels, own):
    ours = loss.stage or "stage2"
    f_s, f_t = student[ours], teacher[loss.teacher_stage or ours]
    x = batch_norm(
        conv(f_s, own["adapter/conv/kernel"]), own["adapter/bn/scale"], own["adapter/bn/bias"]
    )
    values = []
    for a, b in zip(x, f_t, strict=True):
        a, b = (f.reshape(-1, f.shape[-1]) for f in (a, b))
        values.append(np.sum((unit(a.T @ a) - unit(b.T @ b)) ** 2) / f_t.shape[-1])
    return np.array(values)


TestICKD = contract(
    Spec(
        ICKD,
        formula,
        cases={
            "default": ICKD(),
            "same_channels": ICKD(stage="flat"),
            "other_sizes": ICKD(stage="odd", teacher_stage="double"),
        },
        other_values={"stage": "stage1", "teacher_stage": "half", "sync_batch_norm": False},
    )
)


@law
@given(maps, maps)
def test_ickd_lies_between_zero_and_four(f_s, f_t):
    """Rows of length one are at most two apart."""
    values = value(ICKD(stage="flat"), says(stage=f_s), says(stage=f_t), LABELS)
    assert 0 <= values.min() <= values.max() <= 4.001


@law
@given(maps)
def test_correlations_do_not_see_scale_or_the_order_of_pixels(f):
    turned = jnp.asarray(-8 * f[:, ::-1].swapaxes(1, 2))
    np.testing.assert_allclose(correlation(turned), correlation(jnp.asarray(f)), atol=1e-5)
