import copy
import json
import threading
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fedpact as fp
from fedpact.algorithms.optimizers import SGD
from fedpact.core import Rows, Schema, Seed, Vector
from fedpact.core.errors import ClientError, ConfigError, DataError, FedpactError, ModelError
from fedpact.core.model import GradientModel
from fedpact.learn import MODELS

torch = pytest.importorskip("torch")

from torch import Tensor, nn  # noqa: E402
from torch.nn import functional  # noqa: E402

from fedpact.learn.torch import Torch, TorchModel  # noqa: E402
from fedpact.learn.torch_session import TorchSession  # noqa: E402

THREE = Schema("multiclass", (5,), ("a", "b", "c"))
TWO = Schema("binary", (5,), ("no", "yes"))
NUMBER = Schema("regression", (5,))


def mlp(outputs: int = 3) -> nn.Module:
    return nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, outputs))


def cnn() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 4, 3),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(4, 3),
    )


class Tied(nn.Module):
    """Words in, words out, by one table."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(11, 6)
        self.out = nn.Linear(6, 11, bias=False)
        self.out.weight = self.embed.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.embed(x).mean(dim=1))


class Mixed(nn.Module):
    """A bfloat16 layer under a float32 one."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Linear(5, 8, dtype=torch.bfloat16)
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.relu(self.body(x)).float())


class Everything(nn.Module):
    """Every dtype that travels, a tied weight, a frozen one, a scalar and an empty array."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(5, 3)
        self.second = nn.Linear(5, 3)
        self.second.weight = self.first.weight
        self.frozen = nn.Parameter(torch.randn(4), requires_grad=False)
        self.twofold = nn.Parameter(torch.randn(2, 2, dtype=torch.float64))
        self.halved = nn.Parameter(torch.randn(7).half())
        self.brain = nn.Parameter(torch.randn(3, 1).bfloat16())
        self.scalar = nn.Parameter(torch.tensor(1.5))
        self.empty = nn.Parameter(torch.zeros(0, 2))
        for name in ("int64", "int32", "int16", "int8", "uint8", "bool", "bfloat16"):
            self.register_buffer(f"of_{name}", torch.zeros(3, dtype=getattr(torch, name)))

    def forward(self, x: Tensor) -> Tensor:
        return self.first(x) + self.second(x) * self.scalar


def frozen_body() -> nn.Module:
    module = mlp()
    module[0].requires_grad_(False)
    return module


def rows(shape: tuple[int, ...] = (5,), classes: int = 3, n: int = 32, seed: int = 0) -> Rows:
    random = np.random.default_rng(seed)
    y = random.integers(0, classes, n) if classes else random.normal(size=n)
    return Rows(random.normal(size=(n, *shape)).astype(np.float32), y)


def words(n: int = 32) -> Rows:
    random = np.random.default_rng(0)
    return Rows(random.integers(0, 11, (n, 4)), random.integers(0, 11, n))


def begin(module: nn.Module, schema: Schema, data: Rows, **settings: Any) -> tuple[TorchModel, TorchSession]:
    model = Torch(module, **settings).build(schema)
    session = model.session()
    session.load(model.initial(Seed.of(0)))
    session.bind(data, Seed.of(1))
    return model, session


CASES = {
    "mlp": (mlp, THREE, rows()),
    "batch norm": (cnn, Schema("multiclass", (1, 6, 6), (0, 1, 2)), rows((1, 6, 6))),
    "tied embedding": (Tied, Schema("multiclass", (4,), tuple(range(11))), words()),
    "mixed dtypes": (Mixed, THREE, rows()),
    "float64": (lambda: mlp().double(), THREE, rows()),
    "frozen": (frozen_body, THREE, rows()),
    "lstm": (
        lambda: nn.Sequential(nn.LSTM(5, 4, batch_first=True), Last(), nn.Linear(4, 3)),
        Schema("multiclass", (7, 5), (0, 1, 2)),
        rows((7, 5)),
    ),
}
every_case = pytest.mark.parametrize("case", CASES)


class Last(nn.Module):
    def forward(self, outputs: Any) -> Tensor:
        return outputs[0][:, -1]


def test_a_torch_model_gives_gradients() -> None:
    assert isinstance(Torch(mlp()).build(THREE), GradientModel)


def test_writing_into_the_flat_weights_changes_what_the_module_computes() -> None:
    _, session = begin(mlp(), THREE, rows())
    with torch.no_grad():
        session.weights[0].zero_()
        session.weights[0][-3:] = torch.tensor([1.0, 2.0, 3.0])
        # All that is left of the module is the last layer's bias.
        assert session.module(torch.randn(1, 5)).tolist() == [[1.0, 2.0, 3.0]]


@every_case
def test_parameters_and_gradients_stay_inside_the_flat_tensors(case: str) -> None:
    make, schema, data = CASES[case]
    model, session = begin(make(), schema, data)
    model.predict(session.store(), data.x)
    session.gradient(np.arange(4))
    session.load(session.store())
    session.gradient(None)
    ranges = [
        {array.dtype: (array.data_ptr(), array.data_ptr() + array.nbytes) for array in arrays}
        for arrays in (session.weights, session.gradients)
    ]
    trained = [p for p in session.module.parameters() if p.requires_grad]
    for parameter in trained:
        for tensor, inside in zip((parameter.data, parameter.grad), ranges, strict=True):
            start, stop = inside[tensor.dtype]
            assert start <= tensor.data_ptr()
            assert tensor.data_ptr() + tensor.nbytes <= stop
    assert sum(p.numel() for p in trained) == sum(array.numel() for array in session.weights)


@every_case
@pytest.mark.parametrize("index", [None, np.array([5, 3, 8, 21])], ids=["all rows", "a batch"])
def test_gradient_is_autograds(case: str, index: np.ndarray | None) -> None:
    make, schema, data = CASES[case]
    module = make()
    _, session = begin(module, schema, data)
    session.gradient(np.arange(7, 15))  # leaves gradients that the next call must not add to
    loss = session.gradient(index)

    other = copy.deepcopy(module)
    batch = data if index is None else data.take(index)
    dtype = next(other.parameters()).dtype
    x = torch.from_numpy(batch.x)
    expected_loss = functional.cross_entropy(
        other(x.to(dtype) if x.is_floating_point() else x).to(torch.promote_types(dtype, torch.float32)),
        torch.from_numpy(batch.y),
    )
    expected_loss.backward()
    assert loss == pytest.approx(expected_loss.item(), rel=1e-6)
    for (name, mine), theirs in zip(session.module.named_parameters(), other.parameters(), strict=True):
        if theirs.requires_grad:
            torch.testing.assert_close(mine.grad, theirs.grad, msg=lambda text, name=name: f"{name}: {text}")


def test_batch_norm_statistics_travel() -> None:
    module, data = cnn(), rows((1, 6, 6))
    _, session = begin(module, Schema("multiclass", (1, 6, 6), (0, 1, 2)), data)
    session.gradient(None)
    stored = session.store()
    module.train()(torch.from_numpy(data.x))
    assert stored["1.num_batches_tracked"] == 1
    np.testing.assert_allclose(stored["1.running_mean"], module[1].running_mean.numpy(), rtol=1e-6)
    np.testing.assert_allclose(stored["1.running_var"], module[1].running_var.numpy(), rtol=1e-6)


def test_a_parameter_that_the_loss_does_not_depend_on_has_a_gradient_of_zero() -> None:
    class Spare(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.spare = nn.Linear(5, 3), nn.Linear(5, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.used(x)

    _, session = begin(Spare(), THREE, rows())
    session.gradients[0].fill_(7.0)
    session.gradient(None)
    assert not session.module.spare.weight.grad.any()
    assert session.module.used.weight.grad.all()


def test_twenty_steps_are_those_of_torchs_own_sgd_to_the_bit() -> None:
    module, data = mlp(), rows(n=80)
    _, session = begin(module, THREE, data)
    theirs = torch.optim.SGD(module.parameters(), lr=0.1, momentum=0.9)
    rule, slots = SGD(momentum=0.9), {"momentum": torch.zeros_like(session.weights[0])}
    for step in range(20):
        index = np.arange(4 * step, 4 * step + 4)
        session.gradient(index)
        rule.step(session.weights[0], session.gradients[0], slots, step + 1, 0.1)
        batch = data.take(index)
        theirs.zero_grad()
        functional.cross_entropy(module(torch.from_numpy(batch.x)), torch.from_numpy(batch.y)).backward()
        theirs.step()
    flat = torch.cat([p.detach().reshape(-1) for p in module.parameters()])
    assert torch.equal(session.weights[0], flat)


@settings(max_examples=25, deadline=None)
@given(st.binary(min_size=32, max_size=32))
def test_a_state_dict_has_the_bits_of_the_weights_for_every_dtype(entropy: bytes) -> None:
    model = Torch(Everything()).build(THREE)
    weights = Vector.zeros(model.layout)
    weights.buffer[:] = np.frombuffer(Seed(entropy).generator().bytes(weights.buffer.size), np.uint8)
    weights["of_bool"] = [True, False, True]
    assert {s.dtype for s in model.layout.segments} >= {"float64", "float16", "bfloat16", "int8", "bool"}
    state = model.state_dict(weights)
    for entry in model.layout.entries:
        for name in (entry.name, *entry.aliases):
            bits = state[name].reshape(-1).view(torch.uint8)
            assert bits.numpy().tobytes() == weights[name].tobytes(), name


def test_the_state_dict_is_complete() -> None:
    module = Everything()
    model = Torch(module).build(THREE)
    state = model.state_dict(model.initial(Seed.of(0)))
    assert list(state) == list(module.state_dict())
    assert all(torch.equal(state[name], tensor) for name, tensor in module.state_dict().items())
    Everything().load_state_dict(state, strict=True)


def test_tied_weights_are_one_entry_and_frozen_ones_do_not_travel() -> None:
    model = Torch(Everything()).build(THREE)
    entry, _ = model.layout.place("second.weight")
    assert (entry.name, entry.aliases) == ("first.weight", ("second.weight",))
    assert "frozen" not in {e.name for e in model.layout.entries}
    assert [name for name, _ in model.frozen.items()] == ["frozen"]


def test_an_exported_module_predicts_as_the_model_does() -> None:
    model, session = begin(cnn(), Schema("multiclass", (1, 6, 6), (0, 1, 2)), rows((1, 6, 6)))
    session.gradient(None)
    weights, x = session.store(), rows((1, 6, 6), seed=5).x
    exported = model.export(weights)(torch.from_numpy(x)).softmax(dim=1)
    np.testing.assert_allclose(model.predict(weights, x), exported.detach().numpy(), rtol=1e-6)


def test_dropout_depends_on_the_seed_alone_and_leaves_the_global_generator_untouched() -> None:
    module = nn.Sequential(nn.Linear(5, 64), nn.Dropout(0.5), nn.Linear(64, 3))
    model, session = begin(module, THREE, rows())

    def gradients(seed: int) -> list[bytes]:
        session.bind(rows(), Seed.of(seed))
        found = []
        for _ in range(3):
            session.gradient(None)
            found.append(session.gradients[0].numpy().tobytes())
            torch.rand(seed + 1)
        return found

    before = torch.get_rng_state()
    session.gradient(None)
    model.predict(model.initial(Seed.of(3)), rows().x)
    assert torch.equal(torch.get_rng_state(), before)
    first = gradients(1)
    assert len(set(first)) == 3
    torch.manual_seed(99)
    assert gradients(1) == first
    assert gradients(2) != first


def test_randomness_in_prediction_is_the_same_in_every_call() -> None:
    class Noisy(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x + torch.randn_like(x))

    model = Torch(Noisy(5, 3)).build(THREE)
    weights, before = model.initial(Seed.of(0)), torch.get_rng_state()
    np.testing.assert_array_equal(model.predict(weights, rows().x), model.predict(weights, rows().x))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("module", "schema", "settings", "link"),
    [
        (mlp(1), TWO, {}, lambda out: out.sigmoid().squeeze(1)),
        (mlp(2), TWO, {}, lambda out: out.softmax(1)[:, 1]),
        (mlp(3), THREE, {}, lambda out: out.softmax(1)),
        (nn.Sequential(mlp(3), nn.LogSoftmax(1)), THREE, {"loss": "nll"}, lambda out: out.exp()),
        (mlp(1), NUMBER, {}, lambda out: out.squeeze(1)),
        (nn.Sequential(mlp(1), nn.Flatten(0)), NUMBER, {"loss": "l1"}, lambda out: out),
        (mlp(1), NUMBER, {"loss": "poisson"}, lambda out: out.exp().squeeze(1)),
    ],
    ids=["one logit", "two logits", "three logits", "log-probabilities", "value", "flat value", "rate"],
)
def test_predictions_are_probabilities_or_values(
    module: nn.Module, schema: Schema, settings: dict[str, Any], link: Any
) -> None:
    model = Torch(module, **settings).build(schema)
    x = rows(n=5000).x  # more than one batch
    expected = link(module(torch.from_numpy(x))).detach().numpy()
    predicted = model.predict(model.initial(Seed.of(0)), x)
    assert predicted.shape == expected.shape
    np.testing.assert_allclose(predicted, expected, rtol=1e-5, atol=1e-7)
    assert model.predict(model.initial(Seed.of(0)), x[:0]).shape == expected[:0].shape


def test_predicting_leaves_the_weights_of_a_session_alone() -> None:
    model, session = begin(cnn(), Schema("multiclass", (1, 6, 6), (0, 1, 2)), rows((1, 6, 6)))
    session.gradient(None)
    before, gradients = session.store(), session.gradients[0].clone()
    other = Vector.zeros(model.layout)
    model.predict(other, rows((1, 6, 6)).x)
    assert session.store() == before
    assert torch.equal(session.gradients[0], gradients)
    assert session.module.training
    assert not any(flat.any() for flat in other.flats)


@pytest.mark.parametrize(
    ("loss", "schema", "outputs", "reference"),
    [
        (None, TWO, 1, lambda o, y: functional.binary_cross_entropy_with_logits(o.squeeze(1), y.float())),
        (None, TWO, 2, functional.cross_entropy),
        (None, NUMBER, 1, lambda o, y: ((o.squeeze(1) - y.float()) ** 2).mean()),
        ("huber", NUMBER, 1, lambda o, y: functional.huber_loss(o.squeeze(1), y.float())),
        (lambda o, y: (o - y).abs().max(), NUMBER, 1, lambda o, y: (o.squeeze(1) - y.float()).abs().max()),
        (
            nn.CrossEntropyLoss(weight=torch.tensor([1.0, 2.0, 4.0])),
            THREE,
            3,
            nn.CrossEntropyLoss(weight=torch.tensor([1.0, 2.0, 4.0])),
        ),
    ],
    ids=["one logit", "two logits", "squares", "huber", "a function", "weighted classes"],
)
def test_loss_is_torchs(loss: Any, schema: Schema, outputs: int, reference: Any) -> None:
    module, data = mlp(outputs), rows(classes=len(schema.classes))
    _, session = begin(module, schema, data, loss=loss)
    expected = reference(module(torch.from_numpy(data.x)), torch.from_numpy(data.y)).item()
    assert session.gradient(None) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(
    ("loss", "kind"),
    [
        *[(loss, "regression") for loss in ("mse", "l1", "huber", "poisson")],
        ("bce", "binary"),
        # With two classes the labels make it binary.
        ("cross_entropy", "multiclass"),
        ("nll", "multiclass"),
        (functional.mse_loss, None),
        (None, None),
    ],
)
def test_loss_by_name_says_which_kind_of_label_it_is_for(loss: Any, kind: str | None) -> None:
    assert Torch(mlp(), loss).kind == kind


def clients(y: np.ndarray, x: np.ndarray) -> list[fp.ClientData]:
    half, held_out = len(y) // 2, Rows(x[-10:], y[-10:])
    return [
        fp.ClientData("a", Rows(x[:half], y[:half]), held_out),
        fp.ClientData("b", Rows(x[half:-10], y[half:-10])),
    ]


def test_whole_numbers_are_numbers_to_a_loss_of_numbers() -> None:
    x = rows(n=100).x
    y = np.rint(3 * x[:, 0] - 2 * x[:, 1]).astype(np.int64)
    spec = Torch(nn.Linear(5, 1), "mse")
    result = fp.train(spec, clients(y, x), algorithm=fp.FedAvg(lr=0.1, local_steps=50), rounds=3)
    predicted = result.model(torch.from_numpy(x[-10:])).detach().numpy()[:, 0]
    assert result.evaluation.metrics["rmse"] == pytest.approx(np.sqrt(np.mean((predicted - y[-10:]) ** 2)))
    # What rounding leaves is spread evenly over one, so its root mean square is the root of 1/12.
    assert result.evaluation.metrics["rmse"] < 2 * np.sqrt(1 / 12)


@pytest.mark.parametrize(
    ("module", "loss"),
    [(mlp(2), "cross_entropy"), (nn.Sequential(mlp(2), nn.LogSoftmax(1)), "nll"), (mlp(1), "bce")],
)
def test_two_whole_numbers_are_two_classes_to_a_loss_of_classes(module: nn.Module, loss: str) -> None:
    x = rows(n=100).x
    y = np.where(x[:, 0] > 0, 7, 3)
    spec = Torch(module, loss)
    result = fp.train(spec, clients(y, x), algorithm=fp.FedAvg(lr=0.5, local_steps=50), rounds=3)
    assert result.evaluation.metrics["accuracy"] >= 0.9
    assert set(result.predict(x)) == {3, 7}


def test_bf16_computes_in_bfloat16_and_keeps_float32_weights() -> None:
    module = nn.Sequential(nn.Linear(5, 512), nn.Tanh(), nn.Linear(512, 128), nn.Tanh(), nn.Linear(128, 3))
    data = rows()
    _, precise = begin(module, THREE, data)
    _, rough = begin(module, THREE, data, precision="bf16")
    precise.gradient(None)
    rough.gradient(None)
    a, b = precise.gradients[0], rough.gradients[0]
    assert b.dtype == rough.weights[0].dtype == torch.float32
    assert not torch.equal(a, b)
    # bfloat16 has 8 bits of precision.
    assert (a - b).norm() < 0.03 * a.norm()


def test_each_thread_has_a_session_of_its_own_and_inherits_that_of_one_that_ended() -> None:
    model = Torch(mlp()).build(THREE)
    begun, go_on, mine, others = threading.Event(), threading.Event(), model.session(), []

    def work(wait: bool) -> None:
        others.append(model.session())
        begun.set()
        if wait:
            go_on.wait(10)

    stuck = threading.Thread(target=work, args=(True,))
    stuck.start()
    begun.wait(10)
    for _ in range(2):
        thread = threading.Thread(target=work, args=(False,))
        thread.start()
        thread.join()
    go_on.set()
    stuck.join()
    assert model.session() is mine
    assert others[1] is others[2]
    assert len({id(mine), id(others[0]), id(others[1])}) == 3


def test_threads_with_dropout_do_not_disturb_one_another() -> None:
    module = nn.Sequential(nn.Linear(5, 64), nn.Dropout(0.5), nn.Linear(64, 3))
    model = Torch(module).build(THREE)
    start, results = model.initial(Seed.of(0)), {}

    def work(seed: int) -> None:
        session = model.session()
        session.load(start)
        session.bind(rows(), Seed.of(seed))
        losses = [session.gradient(None) for _ in range(30)]
        results.setdefault(seed, []).append(losses)

    for parallel in (False, True):
        threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
        for thread in threads:
            thread.start()
            if not parallel:
                thread.join()
        for thread in threads:
            thread.join()
    assert all(alone == together for alone, together in results.values())


def test_initial_weights_are_those_of_the_module_as_it_was_given() -> None:
    module = mlp()
    model = Torch(module).build(THREE)
    given = module[0].weight.detach().clone()
    with torch.no_grad():
        module[0].weight.zero_()
    np.testing.assert_array_equal(model.initial(Seed.of(0))["0.weight"], given.numpy())


@pytest.mark.parametrize(
    "spec",
    [
        Torch(mlp(), init="seed"),
        Torch("torch.nn:Linear", options={"in_features": 5, "out_features": 3}),
        Torch(
            nn.Sequential(nn.Unflatten(1, (1, 5)), nn.TransformerEncoderLayer(5, 1, 8), nn.Flatten(), mlp()),
            init="seed",
        ),
    ],
    ids=["reset_parameters", "a factory", "a transformer"],
)
def test_weights_from_the_seed_are_the_same_for_the_same_seed_alone(spec: Torch) -> None:
    before = torch.get_rng_state()
    model = spec.build(THREE)
    first = model.initial(Seed.of(1))
    assert spec.build(THREE).initial(Seed.of(1)) == first
    assert model.initial(Seed.of(2)) != first
    assert np.isfinite(first.flats[0]).all()
    assert torch.equal(torch.get_rng_state(), before)


def test_weights_from_the_seed_are_those_of_a_freshly_built_module() -> None:
    torch.manual_seed(Seed.of(4).integer())
    fresh = nn.Linear(5, 3)
    spec = Torch("torch.nn:Linear", options={"in_features": 5, "out_features": 3})
    weights = spec.build(THREE).initial(Seed.of(4))
    np.testing.assert_array_equal(weights["weight"], fresh.weight.detach().numpy())


def test_drawing_from_the_seed_leaves_frozen_parameters_as_given() -> None:
    module = frozen_body()
    model = Torch(module, init="seed").build(THREE)
    model.initial(Seed.of(0))
    np.testing.assert_array_equal(model.frozen["0.weight"], module[0].weight.detach().numpy())


def test_a_parameter_that_no_reset_draws_is_named() -> None:
    class Scaled(nn.Linear):
        def __init__(self) -> None:
            super().__init__(5, 3)
            self.scale = nn.Parameter(torch.ones(1))

    with pytest.raises(ModelError, match='"scale" cannot be drawn from the seed'):
        Torch(Scaled(), init="seed").build(THREE).initial(Seed.of(0))


def test_a_buffer_that_does_not_travel_starts_anew_with_every_client() -> None:
    class Counting(nn.Linear):
        def __init__(self) -> None:
            super().__init__(5, 3)
            self.register_buffer("seen", torch.zeros(1), persistent=False)

        def forward(self, x: Tensor) -> Tensor:
            self.seen += len(x)
            return super().forward(x)

    model, session = begin(Counting(), THREE, rows())
    session.gradient(None)
    assert session.module.seen == 32
    session.load(model.initial(Seed.of(0)))
    assert session.module.seen == 0
    assert "seen" not in {entry.name for entry in model.layout.entries}


def test_a_buffer_replaced_by_a_new_tensor_travels_all_the_same() -> None:
    class Averaging(nn.Linear):
        def __init__(self) -> None:
            super().__init__(5, 3)
            self.register_buffer("mean", torch.zeros(5))

        def forward(self, x: Tensor) -> Tensor:
            if self.training:
                self.mean = x.detach().mean(dim=0)
            return super().forward(x)

    model, session = begin(Averaging(), THREE, rows())
    session.gradient(None)
    np.testing.assert_allclose(session.store()["mean"], rows().x.mean(axis=0), rtol=1e-5, atol=1e-7)
    session.load(model.initial(Seed.of(0)))
    assert not session.store()["mean"].any()


class Halving(nn.Linear):
    """Halves its inputs where they are."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.mul_(0.5))


@pytest.mark.parametrize(
    "module", [nn.Sequential(nn.ReLU(inplace=True), nn.Linear(5, 3)), Halving(5, 3)], ids=["known", "own"]
)
def test_a_module_that_writes_into_its_inputs_does_not_reach_the_clients_rows(module: nn.Module) -> None:
    # Of the module's own dtype, rows are not copied on the way.
    data = Rows(rows().x.astype(np.float32), rows().y)
    model, session = begin(module, THREE, data)
    before = data.x.copy()
    session.gradient(None)
    model.predict(session.store(), data.x)
    np.testing.assert_array_equal(data.x, before)


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16, np.int64, np.uint8, np.bool_])
def test_examples_of_any_dtype_reach_the_first_layer_in_its_own(dtype: Any) -> None:
    x = np.random.default_rng(0).integers(0, 2, (8, 5)).astype(dtype)
    x.flags.writeable = False
    module = mlp()
    model = Torch(module).build(THREE)
    expected = module(torch.tensor(x, dtype=torch.float32)).softmax(1).detach().numpy()
    np.testing.assert_allclose(model.predict(model.initial(Seed.of(0)), x), expected, rtol=1e-6)


def test_an_embedding_takes_whole_numbers_from_a_table_of_floats_and_refuses_fractions() -> None:
    model = Torch(Tied()).build(Schema("multiclass", (4,), tuple(range(11))))
    weights, x = model.initial(Seed.of(0)), words().x
    as_table = x.astype(model.input_dtype)
    np.testing.assert_array_equal(model.predict(weights, as_table), model.predict(weights, x))
    with pytest.raises(DataError, match="takes whole numbers"):
        model.predict(weights, as_table + 0.5)


def test_arrays_match_the_weights_and_leave_buffers_out() -> None:
    model, session = begin(Everything(), THREE, rows())
    vector = Vector.zeros(model.layout.wide)
    arrays = session.arrays(vector)
    assert [a.shape for a in arrays] == [w.shape for w in session.weights]
    vector.flats[0][:] = 3
    assert (arrays[0] == 3).all()
    with pytest.raises(ModelError, match="does not fit"):
        session.arrays(Vector.zeros(model.layout))


def test_a_factory_in_a_job_is_built_again_from_its_description() -> None:
    spec = Torch("torch.nn:Linear", "cross_entropy", options={"in_features": 5, "out_features": 3})
    described = json.loads(json.dumps(spec.describe()))
    assert MODELS.build(described) == spec


def test_a_description_tells_modules_apart_by_all_that_decides_a_run() -> None:
    def described(module: nn.Module, **settings: Any) -> str:
        return json.dumps(Torch(module, **settings).describe(), sort_keys=True)

    module, relu = mlp(), mlp()
    relu.load_state_dict(module.state_dict())
    relu[1] = nn.ReLU()
    frozen = copy.deepcopy(module)
    frozen[2].requires_grad_(False)
    other_frozen = copy.deepcopy(frozen)
    with torch.no_grad():
        other_frozen[2].bias += 1
    assert described(copy.deepcopy(module)) == described(module)
    assert described(mlp(), init="seed") == described(mlp(), init="seed")
    different = [
        described(module),
        described(mlp()),
        described(relu),
        described(frozen),
        described(other_frozen),
        described(module, init="seed"),
        described(module, loss=functional.cross_entropy),
        described(module, loss=nn.CrossEntropyLoss()),
        described(module, loss=nn.CrossEntropyLoss(label_smoothing=0.1)),
        described(module, loss=nn.CrossEntropyLoss(torch.tensor([1.0, 2.0, 3.0]))),
        described(module, precision="bf16"),
    ]
    assert len(set(different)) == len(different)


def test_outputs_that_are_not_the_classes_are_refused() -> None:
    with pytest.raises(
        ModelError,
        match=r"the model gives 3 outputs but the data has 4 classes \(a, b, c, d\); its last layer must have 4",
    ):
        Torch(mlp(3)).build(Schema("multiclass", (5,), ("a", "b", "c", "d")))
    with pytest.raises(ModelError, match=r"gives 3 outputs but the data has 2 classes .* must have 1 or 2"):
        Torch(mlp(3)).build(TWO)
    with pytest.raises(ModelError, match="gives 3 outputs but a regression predicts one number"):
        Torch(mlp(3)).build(NUMBER)


class Pair(nn.Linear):
    def forward(self, x: Tensor) -> Any:
        return super().forward(x), x


def all_frozen() -> nn.Module:
    return mlp().requires_grad_(False)


def sharing_memory() -> nn.Module:
    module = nn.Sequential(nn.Linear(5, 5), nn.Linear(5, 5), nn.Linear(5, 3))
    module[1].weight.data = module[0].weight.data
    return module


@pytest.mark.parametrize(
    ("make", "settings", "error", "message"),
    [
        (nn.Flatten, {}, ModelError, "no parameters to train"),
        (all_frozen, {}, ModelError, "no parameters to train"),
        (lambda: Pair(5, 3), {}, ModelError, "returns tuple; wrap it"),
        (lambda: nn.Linear(6, 3), {}, ModelError, r"fails on two examples of shape \(5,\)"),
        (lambda: nn.LazyLinear(3), {}, ModelError, '"weight" has no values yet'),
        (lambda: nn.Linear(5, 3, device="meta"), {}, ModelError, '"weight" has no values yet'),
        (lambda: nn.Sequential(nn.Linear(5, 3), nn.Unflatten(1, (3, 1))), {}, ModelError, r"\(2, 3, 1\); it"),
        (sharing_memory, {}, ModelError, '"1.weight" and "0.weight" are two parameters in the same memory'),
        (
            mlp,
            {"loss": "bce"},
            ModelError,
            "does not fit a multiclass label and 3 outputs; use cross_entropy",
        ),
        (mlp, {"loss": lambda o, y: o.sum(dim=1)}, ModelError, "must return the mean over the rows"),
        (mlp, {"loss": lambda o: o.mean()}, ModelError, "the loss fails"),
        (mlp, {"loss": nn.Bilinear(1, 1, 1)}, ModelError, "the loss has parameters of its own"),
        (mlp, {"loss": "cross_entrpy"}, ConfigError, 'Did you mean "cross_entropy"'),
        (mlp, {"precision": "float16"}, ConfigError, "must be full or bf16"),
        (mlp, {"init": "sead"}, ConfigError, 'Did you mean "seed"'),
        (mlp, {"options": {"a": 1}}, ConfigError, "options are for a factory"),
        (mlp, {"device": "gpu"}, ConfigError, 'device is "gpu"; it must be'),
        (lambda: nn.Linear, {}, ModelError, "needs an instance"),
        (lambda: "torch.nn.Linear", {}, ModelError, 'write it as "package.module:factory"'),
        (lambda: "no_such_package:Net", {}, ModelError, "cannot be imported"),
        (lambda: "torch.nn:Linaer", {}, ModelError, 'Did you mean "Linear"'),
        (lambda: "torch.nn:Linear", {}, ModelError, "fails with {}: .* missing 2 required"),
        (lambda: "torch:zeros", {"options": {"size": (1,)}}, ModelError, "returns Tensor, not a module"),
    ],
)
def test_what_cannot_be_trained_is_refused(
    make: Any, settings: dict[str, Any], error: type[FedpactError], message: str
) -> None:
    with pytest.raises(error, match=message):
        Torch(make(), **settings).build(THREE)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_device_that_is_not_there_is_refused() -> None:
    with pytest.raises(ConfigError, match='no device "cuda": torch finds 0 CUDA devices; use "cpu"'):
        Torch(mlp(), device="cuda").build(THREE)


def test_rows_that_do_not_fit_are_refused() -> None:
    model, session = begin(mlp(), THREE, rows())
    with pytest.raises(DataError, match=r"an example has shape \(6,\); the model takes \(5,\)"):
        session.bind(rows((6,)), Seed.of(0))
    with pytest.raises(DataError, match="without labels"):
        session.bind(Rows(rows().x), Seed.of(0))
    with pytest.raises(DataError, match="a torch module takes numbers"):
        model.predict(model.initial(Seed.of(0)), np.full((2, 5), "a"))
    with pytest.raises(ModelError, match="do not fit this model"):
        session.load(Torch(mlp(2)).build(TWO).initial(Seed.of(0)))


def frozen_norm() -> nn.Module:
    module = nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 3))
    module[1].eval()
    return module


def test_submodule_in_evaluation_mode_stays_in_it_while_the_rest_is_trained() -> None:
    module = frozen_norm()
    model, session = begin(module, THREE, rows())
    start = model.initial(Seed.of(0))
    # Before and after a prediction, for which the whole module is in evaluation mode.
    for _ in range(2):
        session.gradient(None)
        assert session.store()["1.num_batches_tracked"] == 0
        np.testing.assert_array_equal(session.store()["1.running_mean"], start["1.running_mean"])
        assert [part.training for part in session.module] == [True, False, True, True]
        model.predict(start, rows().x)
    # One row has no variance, which a batch norm in evaluation mode does not need.
    session.gradient(np.array([0]))


def test_module_in_evaluation_mode_as_a_whole_is_trained_as_a_whole() -> None:
    _, session = begin(cnn().eval(), Schema("multiclass", (1, 6, 6), (0, 1, 2)), rows((1, 6, 6)))
    session.gradient(None)
    assert session.store()["1.num_batches_tracked"] == 1


def test_what_stays_in_evaluation_mode_is_part_of_the_description() -> None:
    module = frozen_norm()
    one = Torch(copy.deepcopy(module)).describe()
    module[1].train()
    two = Torch(copy.deepcopy(module)).describe()
    assert one.pop("structure") != two.pop("structure")
    assert one == two
    assert Torch(module.eval()).describe()["structure"] == Torch(module.train()).describe()["structure"]


@pytest.mark.parametrize("loss", ["cross_entropy", "nll", "bce"])
def test_continuous_labels_are_refused_by_a_loss_of_classes_with_the_clients_name(loss: str) -> None:
    y = np.linspace(0, 1, 40)
    with pytest.raises(
        DataError, match="are continuous numbers, but classes are predicted; use a regression"
    ):
        fp.train(Torch(mlp(2), loss), clients(y, rows(n=40).x), rounds=1)


def test_a_batch_that_the_module_cannot_take_is_the_clients_failure() -> None:
    norm = nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4), nn.Linear(4, 3))
    _, session = begin(norm, THREE, rows())
    with pytest.raises(ClientError, match="fails on 1 row: Expected more than 1 value per channel"):
        session.gradient(np.array([0]))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@every_case
def test_a_cuda_device_computes_the_same(case: str) -> None:
    make, schema, data = CASES[case]
    module = make()
    on_cpu, cpu = begin(module, schema, data)
    on_gpu, gpu = begin(module, schema, data, device="cuda")
    assert gpu.gradient(None) == pytest.approx(cpu.gradient(None), rel=1e-3)
    for a, b in zip(cpu.gradients, gpu.gradients, strict=True):
        torch.testing.assert_close(a, b.cpu(), rtol=1e-2, atol=1e-3)
    weights = on_gpu.initial(Seed.of(0))
    gpu.load(weights)
    assert gpu.store() == weights == on_cpu.initial(Seed.of(0))
    np.testing.assert_allclose(on_gpu.predict(weights, data.x), on_cpu.predict(weights, data.x), atol=1e-3)
