"""Softmax regression representation learning: the teacher's classifier reads the student."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax.losses import SRRL
from kdjax.types import Outputs
from tests.losses.contract import Spec, contract
from tests.losses.formulas import batch_norm
from tests.losses.support import (
    STUDENT_MAPS,
    agree,
    as_float64,
    example,
    flat_float64,
    outputs,
    own_variables,
    value,
)


def formula(loss, student, teacher, labels, own):
    features = student["embedding"][:, None, None]
    if loss.variant == "authors":
        features = student.get("pooled/stage2", features)
    x = features @ own["regressor/conv/kernel"][0, 0]
    x = batch_norm(x, own["regressor/bn/scale"], own["regressor/bn/bias"])
    regressed = np.mean(np.maximum(x, 0) if loss.relu else x, axis=(1, 2))
    answer = regressed @ own["teacher/kernel"] + own["teacher/bias"]
    of_embeddings = np.mean((regressed - teacher["embedding"]) ** 2, axis=-1)
    return loss.alpha * of_embeddings + loss.beta * np.mean(
        (answer - teacher["logits"]) ** 2, axis=-1
    )


TestSRRL = contract(
    Spec(
        SRRL,
        formula,
        cases={
            "default": SRRL(),
            "authors": SRRL(variant="authors"),
            "without_relu": SRRL(relu=False, alpha=2.0, beta=0.5),
            "embeddings_alone": SRRL(beta=0.0),
        },
        other_values={
            "alpha": 3.0,
            "beta": 3.0,
            "relu": False,
            "variant": "authors",
            "sync_batch_norm": False,
        },
        reads=lambda loss: ("pooled/stage2",) if loss.variant == "authors" else ("embedding",),
        every_day=True,
    )
)

CASES = pytest.mark.parametrize("loss", TestSRRL.spec.cases.values(), ids=TestSRRL.spec.cases)


@CASES
def test_an_embedding_that_is_no_mean_of_the_last_map_is_regressed_itself(loss):
    _, teacher, batch = example()
    student = outputs(STUDENT_MAPS, 6, seed=9)
    drawn = loss.init(jax.random.key(0), student, teacher, batch)["params"]
    variables = {**own_variables(loss), "params": drawn}

    def apply(student):
        return jax.vmap(
            lambda *part: loss.apply(variables, *part, mutable=["batch_stats"])[0],
            axis_name="batch",
        )(*jax.tree.map(lambda x: x[None], (student, teacher, batch)))[0]

    own = {**flat_float64(drawn), **flat_float64(variables["teacher"], "teacher/")}
    expected = formula(loss, as_float64(student), as_float64(teacher), batch.label, own)
    agree(apply(student), expected)
    slope = jax.grad(lambda out: apply(out)[0])(student)
    assert jnp.any(slope.embedding)
    assert not any(map(jnp.any, slope.features.values()))


def test_a_student_without_maps_has_its_embedding():
    student, teacher, batch = example()
    student = Outputs(student.logits, {}, student.embedding)
    params = SRRL().init(jax.random.key(0), student, teacher, batch)["params"]
    assert params["regressor"]["conv"]["kernel"].shape == (1, 1, 3, 4)


@CASES
def test_srrl_is_zero_where_the_regressor_finds_the_teacher(loss):
    """With batch norm at its defaults undone by the teacher's own statistics."""
    student, teacher, batch = example()
    rng = np.random.default_rng(0)
    embedding = rng.uniform(0.5, 3, (len(batch.label), 3))
    classifier = own_variables(loss)["teacher"]
    wide = np.concatenate([embedding, embedding[:, :1]], axis=-1)
    teacher = teacher._replace(
        embedding=jnp.asarray(wide, jnp.float32),
        logits=jnp.asarray(wide @ classifier["kernel"] + classifier["bias"], jnp.float32),
    )
    flat = jnp.broadcast_to(embedding[:, None, None], (len(embedding), 4, 4, 3))
    own = {"embedding": jnp.asarray(embedding, jnp.float32)}
    own["pooled"] = {"stage2": flat.astype(jnp.float32)}
    params = {
        "regressor": {
            "conv": {"kernel": jnp.eye(3, 4).at[0, 3].set(1)[None, None]},
            "bn": {
                "scale": jnp.sqrt(wide.var(axis=0) + 1e-5).astype(jnp.float32),
                "bias": wide.mean(axis=0).astype(np.float32),
            },
        }
    }
    values = value(loss, student._replace(**own), teacher, batch, params)
    np.testing.assert_allclose(values, 0, atol=1e-10)


@pytest.mark.parametrize("field", ["alpha", "beta"])
def test_weights_are_not_negative(field):
    with pytest.raises(ValueError, match=rf"^{field}: -1.0 cannot work; it must be >= 0"):
        SRRL(**{field: -1.0}).check()
