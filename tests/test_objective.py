"""Terms and ramps: how losses are weighed."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from kdjax.experiment.objective import Term, term_names
from kdjax.losses import AttentionTransfer, CrossEntropy, FitNet, Ramp, SoftTarget


def test_a_repeated_term_is_numbered():
    losses = (
        SoftTarget(),
        CrossEntropy(),
        SoftTarget(temperature=1.0),
        AttentionTransfer(),
        FitNet(),
        SoftTarget(),
    )
    assert term_names([Term(loss) for loss in losses]) == (
        "soft_target",
        "cross_entropy",
        "soft_target_2",
        "attention_transfer",
        "fit_net",
        "soft_target_3",
    )
    assert term_names([]) == ()


EPOCHS = np.array([0.0, 2.0, 3.0, 4.0, 5.0, 6.0, 9.0], np.float32)


def test_ramps_move_and_stay():
    linear = Ramp(start=1.0, stop=3.0, begin=2.0, epochs=4.0)
    np.testing.assert_allclose(linear(jnp.asarray(EPOCHS)), [1, 1, 1.5, 2, 2.5, 3, 3], rtol=1e-6)
    cosine = dataclasses.replace(linear, shape="cosine")
    quarter = 1 - np.cos(np.pi / 4)
    expected = [1, 1, 1 + quarter, 2, 3 - quarter, 3, 3]
    np.testing.assert_allclose(cosine(jnp.asarray(EPOCHS)), expected, rtol=1e-6)
    default = Ramp()(jnp.asarray([0.0, 5.0, 20.0, 240.0]))
    np.testing.assert_allclose(default, [0, 0.25, 1, 1], rtol=1e-6)


RAMP_VALUES = {"start": 0.5, "stop": 2.0, "begin": 1.0, "epochs": 10.0, "shape": "cosine"}


def test_no_field_of_a_ramp_is_dead():
    fields = {f.name for f in dataclasses.fields(Ramp)}
    assert fields == set(RAMP_VALUES)
    for field in fields:
        ramp = Ramp(**{field: RAMP_VALUES[field]})
        assert not np.allclose(ramp(jnp.asarray(EPOCHS)), Ramp()(jnp.asarray(EPOCHS))), field


def test_a_term_weighs_by_its_schedule():
    term = Term(SoftTarget(), 3.0, Ramp(start=0.5, stop=1.0, epochs=4.0))
    weight = term.weight_at(jnp.asarray(2.0))
    assert (weight.dtype, float(weight)) == (jnp.float32, 2.25)
    steady = Term(SoftTarget(), 3.0).weight_at(jnp.asarray(2.0))
    assert (steady.dtype, float(steady)) == (jnp.float32, 3.0)


def test_a_ramp_of_no_length_is_a_switch():
    switch = Ramp(begin=3.0, epochs=0.0)
    np.testing.assert_array_equal(switch(jnp.asarray([0.0, 2.99, 3.0, 9.0])), [0, 0, 1, 1])
    with pytest.raises(ValueError, match=r"^epochs: -1.0 cannot work; it must be >= 0"):
        Ramp(epochs=-1.0).check()
