"""Random numbers of networks: how often something is left out, by which key, and where."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax.data.pipeline import TrainingStream
from kdjax.models import NAMED, Draws, infer, learn
from kdjax.models.dropout import drop_path, dropout
from kdjax.models.summary import is_random
from kdjax.students.recalibrate import recalibrate
from kdjax.training.parallel import Devices, fetch
from kdjax.training.recipe import Recipe
from kdjax.training.state import Fixed
from kdjax.training.step import make_train_step
from kdjax.types import Outputs
from tests.networks import CASES, VIT, images
from tests.support import largest_difference
from tests.test_models import initialised
from tests.training import TEACHER, make_run, random_teacher, start, train

RATE = 0.3


class Toy(nn.Module):
    """Its input through two layers of each kind."""

    @nn.compact
    def __call__(self, x, train):
        kinds = {"dropout": dropout, "path": drop_path}
        found = {
            f"{name}{i}": drop(x, RATE, train, f"{name}{i}")
            for name, drop in kinds.items()
            for i in range(2)
        }
        return Outputs(x[:, 0], found, x[:, 0])


def draws(examples, views=0, step=0):
    examples = jnp.asarray(examples)
    views = jnp.broadcast_to(jnp.asarray(views), examples.shape)
    return Draws(jax.random.key(step), examples, views)


def toy(x, drawn):
    return jax.device_get(learn(Toy(), {}, jnp.asarray(x, jnp.float32), drawn)[0].features)


# --- What a layer does -------------------------------------------------------------------------


def test_what_is_kept_is_divided_so_that_the_expectation_stays():
    x = np.random.default_rng(0).normal(size=(2000, 3, 2)).astype(np.float32)
    for name, found in toy(x, draws(range(2000))).items():
        kept = found != 0
        np.testing.assert_allclose(found, kept * x.astype(np.float64) / (1 - RATE), rtol=1e-6)
        independent = kept.size if name.startswith("dropout") else len(x)
        sigma = np.sqrt(RATE * (1 - RATE) / independent)
        assert abs(kept.mean() - (1 - RATE)) < 4 * sigma, name


def test_a_path_is_dropped_for_an_example_as_a_whole_and_a_number_by_itself():
    found = toy(np.ones((64, 3, 2)), draws(range(64)))
    whole = {name: (x == x[:, :1, :1]).all(axis=(1, 2)) for name, x in found.items()}
    assert whole["path0"].all()
    assert whole["dropout0"].mean() < 0.5
    for kind in ("path", "dropout"):  # layers differ
        assert (found[f"{kind}0"] != found[f"{kind}1"]).any()


def test_numbers_are_those_of_step_view_and_example_wherever_it_stands():
    x, names = np.ones((64, 3, 2)), np.arange(64)
    reference = toy(x, draws(names, views=2))
    order = np.random.default_rng(0).permutation(64)[:32]
    for name, found in toy(x[:32], draws(order, views=2)).items():
        np.testing.assert_array_equal(found, reference[name][order])
    others = toy(x, draws(names, views=3)), toy(x, draws(names, views=2, step=1))
    for name in reference:
        assert all((found[name] != reference[name]).any() for found in others)
        assert (reference[name] != reference[name][:1]).any()


def test_nothing_is_dropped_without_draws_or_in_evaluation():
    x = jnp.ones((4, 3, 2))
    for found in (toy(x, None), Toy().apply({}, x, train=False).features):
        assert all((value == x).all() for value in found.values())


class Reshaped(nn.Module):
    """Drops over what is no example."""

    axes: tuple[int, ...] = ()

    @nn.compact
    def __call__(self, x, train):
        x = x if self.axes else x.reshape(-1, 2)
        return nn.Dropout(RATE, self.axes, deterministic=not train, name="drop")(x)


@pytest.mark.parametrize("axes", [(), (0,), (-3,)])
def test_a_layer_that_cannot_draw_for_each_example_is_refused(axes):
    message = r"^drop: nn.Dropout of \[(12|4, 3), 2\] cannot draw for each of 4 examples; let the"
    for drawn in (None, draws(range(4))):
        with pytest.raises(ValueError, match=message):
            learn(Reshaped(axes), {}, jnp.ones((4, 3, 2)), drawn)


# --- In our networks ---------------------------------------------------------------------------

FIELDS = ("dropout", "drop_path")
RANDOM = [
    (name, field)
    for name, case in CASES.items()
    for field in FIELDS
    if hasattr(case.model, field) and name not in ("vit_distilled", "mobilenet_v2_relu")
]


@pytest.mark.parametrize(("name", "field"), RANDOM)
def test_a_network_drops_in_training_and_never_in_evaluation(name, field):
    plain = CASES[name].model.clone(sync_batch_norm=False)
    other = plain.clone(**{field: 0.6})

    def program(model, run):
        return jax.make_jaxpr(lambda *values: run(model, *values))(initialised(plain), images(8))

    def training(drawn):
        return lambda *run: learn(*run, drawn)[0]

    assert str(program(other, infer)) == str(program(plain, infer))
    assert str(program(other, training(None))) == str(program(plain, training(draws(range(8)))))
    assert is_random(program(other, training(draws(range(8)))).jaxpr)


def rates(model, shape=(32, 32, 3)):
    """Of each layer that drops, where it stands in the network."""
    found = {}

    def see(call, arguments, fields, context):
        layer = context.module
        if isinstance(layer, nn.Dropout) and layer.rate:
            found[layer.name] = layer.rate, bool(layer.broadcast_dims)
        return call(*arguments, **fields)

    with nn.intercept_methods(see):
        jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, *shape), jnp.uint8))
    return found


def test_paths_of_a_convnext_are_dropped_as_in_torchvision():
    found = rates(NAMED["convnext_tiny"].clone(drop_path=0.1))
    assert len(found) == 17
    names = [f"stage{i}_block{j}_path" for i, n in enumerate((3, 3, 9, 3), 1) for j in range(n)]
    for n, name in enumerate(names[1:], start=1):
        assert found[name] == (pytest.approx(0.1 * n / 17), True)


def test_paths_of_an_efficientnet_are_dropped_as_in_torchvision():
    found = rates(NAMED["efficientnet_b0"].clone(drop_path=0.2, dropout=0.2))
    assert found.pop("classifier_dropout") == (0.2, False)
    counts = (1, 2, 2, 3, 3, 4, 1)
    names = [f"stage{i}_block{j}_path" for i, n in enumerate(counts, 1) for j in range(n)]
    with_shortcut = {n for n, name in enumerate(names) if "block0" not in name}
    assert {names[n]: (pytest.approx(0.2 * n / 16), True) for n in with_shortcut} == found


def test_paths_of_a_vision_transformer_are_dropped_as_in_timm():
    shape = (224, 224, 3)
    found = rates(NAMED["deit_tiny"].clone(drop_path=0.1), shape)
    names = [f"stage{i}_block{j}_path" for i in range(1, 5) for j in range(3)]
    expected = {f"{x}{k}": 0.1 * n / 11 for n, x in enumerate(names) for k in (1, 2) if n}
    assert {name: (pytest.approx(rate), True) for name, rate in expected.items()} == found
    found = rates(NAMED["deit_tiny"].clone(dropout=0.1), shape)
    assert set(found.values()) == {(0.1, False)}
    assert len(found) == 1 + 12 * 3  # after the positions; of attention, inside an MLP and after it


def test_hidden_layers_of_a_vgg_and_blocks_of_a_wide_resnet_are_dropped():
    names = [f"stage{i}_block{j}_dropout" for i in (1, 2) for j in range(3 - i)]
    assert rates(CASES["wide_resnet"].model.clone(dropout=0.4)).keys() == set(names)
    found = rates(CASES["vgg_dense"].model.clone(dropout=0.5))
    assert found.keys() == {"dense1_dropout", "classifier_dropout"}


def test_statistics_are_measured_with_nothing_dropped():
    plain = CASES["efficientnet"].model
    variables = initialised(plain)
    expected, found = (
        recalibrate(plain.clone(drop_path=rate), variables, [np.asarray(images(8))])
        for rate in (0.0, 0.6)
    )
    jax.tree.map(np.testing.assert_array_equal, expected, found)


# --- In the step -------------------------------------------------------------------------------

DROPPING = VIT.clone(
    num_classes=10, image_size=(8, 8), blocks=(2,), mean=(0.305,), dropout=0.2, drop_path=0.5
)
FIT = make_run().fit


@pytest.fixture(scope="module")
def source(digits):
    return digits.open("train")


class Steps:
    """One program on one device, from any state at any steps."""

    def __init__(self, source):
        self.run = make_run(model=DROPPING)
        self.recipe, self.devices = Recipe.of(self.run, TEACHER, len(source)), Devices("pmap", 1)
        self.step = self.devices.spread(make_train_step(self.recipe), donate=True)
        self.fixed = Fixed(self.devices.replicate(random_teacher()))
        self.stream = TrainingStream(source, FIT.batch_size, self.run.seed)

    def __call__(self, state, numbers):
        """The state after them, on the host, and the metrics of the last."""
        state = self.devices.replicate(state)
        for i in numbers:
            batch = self.devices.split(self.stream.batch(i, np.arange(FIT.batch_size)))
            state, metrics = self.step(state, self.fixed, batch)
        return jax.device_get(fetch(state)), fetch(metrics)


@pytest.fixture(scope="module")
def on_one_device(source):
    return Steps(source)


@pytest.fixture(scope="module")
def straight(on_one_device):
    """Four steps from the beginning."""
    return on_one_device(start(on_one_device.run, on_one_device.recipe), range(4))


@pytest.mark.parametrize(
    ("layout", "slices"),
    [
        (("pmap", 8), 1),
        (("pmap", 2), 2),
        pytest.param(("shard_map", 8), 1, marks=pytest.mark.slow),
        pytest.param(("pmap", 4), 4, marks=pytest.mark.slow),
    ],
)
def test_any_layout_drops_the_same(layout, slices, source, straight):
    state, metrics = straight
    run = make_run(model=DROPPING, fit=dataclasses.replace(FIT, accumulate=slices))
    other, others, _ = train(run, source, random_teacher(), layout)
    np.testing.assert_allclose(others[-1, [0, 3, 4]], metrics[[0, 3, 4]], rtol=1e-5)
    assert largest_difference(fetch(other.params), state.params) < 2e-6


def test_a_step_drops_by_its_number_and_a_resumed_run_goes_on_to_the_bit(on_one_device, straight):
    steps = on_one_device
    half, _ = steps(start(steps.run, steps.recipe), range(2))
    state, _ = steps(half, range(2, 4))
    assert largest_difference(state.params, straight[0].params) == 0
    # The same weights and the same batch at another step: other numbers, hence another loss.
    losses = [steps(half._replace(step=np.int32(n)), [2])[1][3] for n in (2, 2, 3)]
    assert losses[0] == losses[1] != losses[2]
