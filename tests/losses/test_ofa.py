"""One for all: every stage answers, whatever the architecture."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdjax.experiment.objective import Term
from kdjax.losses import OFA, Ramp
from tests.losses.contract import Spec, contract
from tests.losses.formulas import batch_norm, conv, label_loss, log_softmax
from tests.losses.support import (
    STUDENT_MAPS,
    agree,
    example,
    law,
    logits,
    own_variables,
    value,
)


def answer_loss(loss, z_s, z_t, labels, eps):
    values = []
    for log_s, log_t, y in zip(
        log_softmax(z_s / loss.temperature),
        log_softmax(z_t / loss.temperature),
        labels,
        strict=True,
    ):
        total = 0.0
        for c, p in enumerate(np.exp(log_t)):
            if loss.variant == "paper":
                weight = (1 + p) ** eps if c == y else p
            else:
                weight = (p + (c == y)) ** eps - (c == y)
            total -= weight * log_s[c]
        values.append(total)
    return np.array(values)


def separable(x, own, name):
    for i, stride in ((1, 2), (2, 1)):
        kernel = own[f"{name}/depthwise{i}/kernel"]
        parts = [
            conv(x[..., [c]], kernel[..., [c]], stride=stride, pads=(1, 1))
            for c in range(x.shape[-1])
        ]
        x = np.concatenate(parts, axis=-1)
        pointwise = f"{name}/pointwise{i}"
        x = conv(x, own[f"{pointwise}/conv/kernel"])
        x = np.maximum(batch_norm(x, own[f"{pointwise}/bn/scale"], own[f"{pointwise}/bn/bias"]), 0)
    return x


def formula(loss, student, teacher, labels, own):
    *of_stages, of_logits = loss.eps
    total = answer_loss(loss, student["logits"], teacher["logits"], labels, of_logits)
    for i, name in enumerate(loss.stages or ("stage1", "stage2")):
        eps = of_stages[i] if of_stages else of_logits
        x = student[name]
        for j in range(1, {"flat": 2, "stage1": 1, "stage2": 0}[name] + 1):
            x = separable(x, own, f"{name}_exit{j}")
        if name == "stage2":
            x = conv(x, own["stage2_exit/kernel"], own["stage2_exit/bias"])
        pooled = x.mean(axis=(1, 2))
        z = pooled @ own[f"{name}_classifier/kernel"] + own[f"{name}_classifier/bias"]
        total = total + answer_loss(loss, z, teacher["logits"], labels, eps)
    return total


TestOFA = contract(
    Spec(
        OFA,
        formula,
        cases={
            "default": OFA(),
            "enhanced": OFA(eps=(1.5,), temperature=0.5),
            "paper": OFA(variant="paper", eps=(1.5,)),
            "each_its_own": OFA(eps=(1.0, 1.5, 2.0)),
            "before_the_first_stage": OFA(stages=("flat",), eps=(2.0,)),
        },
        other_values={
            "stages": ("stage1",),
            "eps": (1.5,),
            "temperature": 2.0,
            "variant": "paper",
            "sync_batch_norm": False,
        },
        reads=("logits", "stage1", "stage2", "flat"),
        training=Term(OFA(temperature=0.25)),  # a random teacher is unsure, and that is a floor
    )
)


def target(variant, eps, z_t, labels):
    of_loss = jax.jit(OFA(variant=variant)._target, static_argnums=2)
    return np.asarray(of_loss(jnp.asarray(z_t), jnp.asarray(labels), eps))


@law
@given(logits, st.sampled_from([1.0, 1.5, 3.0]))
def test_the_target_alone_is_enhanced(z, eps):
    """Hao et al., section 3.3: a teacher that is surer of the label teaches it the more."""
    labels = np.array([0, 2, 4])
    p = np.exp(log_softmax(z.astype(np.float64)))
    of_label = np.arange(len(labels)), labels
    code, paper = (target(variant, eps, z, labels) for variant in ("code", "paper"))
    plain = target("code", 1.0, z, labels)
    np.testing.assert_allclose(plain, p, rtol=1e-4, atol=1e-30)
    assert (code[of_label] >= plain[of_label] * (1 - 1e-6)).all()
    np.testing.assert_allclose(paper[of_label] - code[of_label], 1, rtol=1e-5)
    others = np.ones_like(z, bool)
    others[of_label] = False
    assert (code[others] <= plain[others] * (1 + 1e-6)).all()
    np.testing.assert_allclose(paper[others], plain[others])


@law
@given(logits, logits)
def test_the_papers_form_at_one_is_the_codes_and_the_label(z_s, z_t):
    labels = np.array([0, 2, 4])
    log_s = log_softmax(z_s.astype(np.float64))
    code, paper = (
        -np.sum(target(variant, 1.0, z_t, labels) * log_s, axis=-1) for variant in ("code", "paper")
    )
    np.testing.assert_allclose(paper, code + label_loss(z_s, labels), rtol=1e-4, atol=1e-5)


def test_a_temperature_can_move_with_the_epochs():
    student, teacher, batch = example()
    moving = OFA(temperature=Ramp(start=4.0, stop=1.0, epochs=10.0))
    params = own_variables(OFA())["params"]
    later = batch._replace(epoch=batch.epoch + 10)
    for when, temperature in ((batch, 4.0), (later, 1.0)):
        fixed = value(OFA(temperature=temperature), student, teacher, when, params)
        agree(value(moving, student, teacher, when, params), fixed, tolerance=1e-6)


def test_an_unknown_stage_is_named_beside_those_there_are():
    message = f"OFA: the student has no stage 'stage9'; it has {', '.join(STUDENT_MAPS)}."
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        OFA(stages=("stage9",)).init(jax.random.key(0), *example())


def test_what_cannot_work_is_refused():
    for eps in ((), (1.0, 0.0)):
        with pytest.raises(ValueError, match=r"^eps: \(.*\) cannot work; it must be one or more"):
            OFA(eps=eps).check()
    with pytest.raises(
        ValueError, match="OFA: 2 values of eps for 3 answers; give one, or one for"
    ):
        OFA(eps=(1.0, 1.5)).init(jax.random.key(0), *example())
    with pytest.raises(ValueError, match=r"^temperature: 0.0 cannot work; it must be positive"):
        OFA(temperature=0.0).check()


def test_branches_double_in_width_and_end_in_that_of_the_wider_embedding():
    params = own_variables(OFA(stages=("flat", "stage2")))["params"]
    widths = [
        params["flat_exit1"]["pointwise2"]["conv"]["kernel"].shape[-1],
        params["flat_exit2"]["pointwise2"]["conv"]["kernel"].shape[-1],
        params["stage2_exit"]["kernel"].shape[-1],
    ]
    assert widths == [6, 4, 4]
