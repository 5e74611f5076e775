"""Labels at every position of an example: the next character at each of a text, the class of each pixel."""

import copy
import io
import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import fedpact as fp
from fedpact.core import Rows, Schema, Seed
from fedpact.core.errors import ModelError
from fedpact.core.model import Kind
from fedpact.core.rows import ClientData
from fedpact.engine.preparation import Preparation
from tests.cli.terminal import call

torch = pytest.importorskip("torch")

from sklearn import metrics  # noqa: E402
from torch import Tensor, nn  # noqa: E402
from torch.nn import functional  # noqa: E402

from fedpact.learn.torch import Torch, TorchModel  # noqa: E402

LENGTH, LETTERS = 6, 5
TEXT = Schema("multiclass", (LENGTH,), tuple("abcde"), positions=(LENGTH,))
MASK = Schema("binary", (1, 4, 3), ("sky", "sea"), positions=(4, 3))
DEPTH = Schema("regression", (1, 4, 3), positions=(4, 3))


class NextLetter(nn.Module):
    """A small one of the model that federated learning is compared on with Shakespeare's plays."""

    def __init__(self, layout: str = "positions") -> None:
        super().__init__()
        self.embed = nn.Embedding(LETTERS, 3)
        self.lstm = nn.LSTM(3, 7, 2, batch_first=True)
        self.out = nn.Linear(7, LETTERS)
        self.layout = layout

    def forward(self, x: Tensor) -> Tensor:
        y = self.out(self.lstm(self.embed(x))[0])
        return {"positions": y, "flat": y.flatten(0, 1), "classes first": y.movedim(-1, 1), "last": y[:, -1]}[
            self.layout
        ]


class Pixels(nn.Module):
    """Outputs for each pixel, with an axis for them or without."""

    def __init__(self, outputs: int, axis: bool = True) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, outputs, 3, padding=1)
        self.axis = axis

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x).movedim(1, -1)
        return y if self.axis else y.squeeze(-1)


def text(n: int = 12, seed: int = 0) -> Rows:
    """Texts in which a letter is the alphabet's next after the one before."""
    first = np.random.default_rng(seed).integers(0, LETTERS, (n, 1))
    letters = (first + np.arange(LENGTH + 1)) % LETTERS
    return Rows(letters[:, :-1], letters[:, 1:])


def images(kind: Kind, n: int = 12) -> Rows:
    random = np.random.default_rng(0)
    x = random.normal(size=(n, 1, 4, 3)).astype(np.float32)
    return Rows(x, (x[:, 0] > 0).astype(np.int64) if kind == "binary" else x[:, 0].astype(np.float64) ** 2)


def built(module: nn.Module, schema: Schema, **settings: Any) -> TorchModel:
    return Torch(module, **settings).build(schema)


def gradient(model: TorchModel, rows: Rows, index: Any = None) -> tuple[float, list[Tensor]]:
    session = model.session()
    session.load(model.initial(Seed.of(0)))
    session.bind(rows, Seed.of(1))
    loss = float(session.gradient(index))
    return loss, [flat.clone() for flat in session.gradients]


def flat(module: nn.Module) -> Tensor:
    return torch.cat([p.grad.reshape(-1) for p in module.parameters()])


@pytest.mark.parametrize("layout", ["positions", "flat"])
@pytest.mark.parametrize("index", [None, np.array([5, 2, 9])], ids=["all rows", "a batch"])
def test_the_loss_is_the_mean_over_all_examples_and_positions(layout: str, index: Any) -> None:
    module, rows = NextLetter(layout), text()
    loss, (found,) = gradient(built(module, TEXT), rows, index)

    theirs, batch = copy.deepcopy(module), rows if index is None else rows.take(index)
    outputs = theirs(torch.from_numpy(batch.x)).reshape(-1, LETTERS)
    expected = functional.cross_entropy(outputs, torch.from_numpy(batch.y).flatten())
    expected.backward()
    assert loss == pytest.approx(expected.item(), rel=1e-6)
    torch.testing.assert_close(found, flat(theirs))


BCE, MSE = functional.binary_cross_entropy_with_logits, functional.mse_loss


def by_class(loss: Any) -> Any:
    return lambda out, y: loss(out.flatten(0, 2), y.flatten().long())


@pytest.mark.parametrize(
    ("module", "schema", "loss", "expected"),
    [
        (Pixels(1), MASK, "bce", lambda out, y: BCE(out.squeeze(-1), y)),
        (Pixels(1, axis=False), MASK, "bce", BCE),
        (Pixels(2), MASK, "cross_entropy", by_class(functional.cross_entropy)),
        (nn.Sequential(Pixels(2), nn.LogSoftmax(-1)), MASK, "nll", by_class(functional.nll_loss)),
        (Pixels(1), DEPTH, "mse", lambda out, y: MSE(out.squeeze(-1), y)),
        (Pixels(1, axis=False), DEPTH, "l1", functional.l1_loss),
        (Pixels(1), DEPTH, "huber", lambda out, y: functional.huber_loss(out.squeeze(-1), y)),
        (Pixels(1), DEPTH, "poisson", lambda out, y: functional.poisson_nll_loss(out.squeeze(-1), y)),
        (
            Pixels(1),
            DEPTH,
            lambda out, y: (out - y).abs().max(),
            lambda out, y: (out.squeeze(-1) - y).abs().max(),
        ),
    ],
    ids=["bce", "bce without an axis", "cross_entropy", "nll", "mse", "l1", "huber", "poisson", "a function"],
)
def test_every_loss_works_at_every_position(
    module: nn.Module, schema: Schema, loss: Any, expected: Any
) -> None:
    rows = images(schema.kind)
    found, (gradients,) = gradient(built(module, schema, loss=loss), rows)
    theirs = copy.deepcopy(module)
    value = expected(theirs(torch.from_numpy(rows.x)), torch.from_numpy(rows.y).float())
    value.backward()
    assert found == pytest.approx(value.item(), rel=1e-5)
    torch.testing.assert_close(gradients, flat(theirs))


@pytest.mark.parametrize(
    ("module", "schema", "x", "link"),
    [
        (NextLetter(), TEXT, text().x, lambda out: out.softmax(-1)),
        (NextLetter("flat"), TEXT, text().x, lambda out: out.softmax(-1).view(-1, LENGTH, LETTERS)),
        (Pixels(1), MASK, images("binary").x, lambda out: out.sigmoid().squeeze(-1)),
        (Pixels(2), MASK, images("binary").x, lambda out: out.softmax(-1)[..., 1]),
        (Pixels(1, axis=False), DEPTH, images("regression").x, lambda out: out),
    ],
    ids=["letters", "letters, one axis", "one logit", "two logits", "values"],
)
def test_predictions_have_the_positions_of_the_labels(
    module: nn.Module, schema: Schema, x: Any, link: Any
) -> None:
    model = built(module, schema)
    weights = model.initial(Seed.of(0))
    with torch.no_grad():
        expected = link(module(torch.from_numpy(x))).numpy()
    np.testing.assert_allclose(model.predict(weights, x), expected, rtol=1e-5, atol=1e-6)
    assert model.predict(weights, x[:0]).shape == (0, *expected.shape[1:])


def test_a_label_in_an_array_of_its_own_is_one_position() -> None:
    model = built(nn.Linear(4, 3), Schema("multiclass", (4,), (0, 1, 2), positions=(1,)))
    x = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)
    assert model.predict(model.initial(Seed.of(0)), x).shape == (5, 1, 3)


def test_prediction_is_the_same_for_many_examples_at_once_as_for_one() -> None:
    model = built(NextLetter(), TEXT)
    weights, x = model.initial(Seed.of(0)), text(5000).x
    together = model.predict(weights, x)
    # 5,000 rows are more than one batch.
    for row in (0, 4095, 4096, 4999):
        np.testing.assert_allclose(together[row], model.predict(weights, x[row : row + 1])[0], rtol=1e-5)


def test_prediction_takes_fewer_examples_at_once_where_a_layer_gives_more_for_each() -> None:
    taken = []

    class Wide(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lift, self.out = nn.Linear(4, 1 << 14), nn.Linear(1 << 14, 3)

        def forward(self, x: Tensor) -> Tensor:
            taken.append(len(x))
            return self.out(self.lift(x))

    model = built(Wide(), Schema("multiclass", (4,), (0, 1, 2)))
    taken.clear()
    model.predict(model.initial(Seed.of(0)), np.zeros((150, 4), np.float32))
    assert max(taken[-3:]) == 64
    assert sum(taken[-3:]) == 150


@pytest.mark.parametrize(
    ("layout", "said"),
    [
        (
            "last",
            r"gives \(2, 5\); it must be \(2, 6\) or \(2, 6, outputs\), as the labels of one are of shape \(6,\)\.$",
        ),
        (
            "classes first",
            r"gives \(2, 5, 6\); it must be .* Move its outputs to the last axis: \.movedim\(1, -1\)",
        ),
    ],
)
def test_outputs_of_other_positions_are_refused(layout: str, said: str) -> None:
    with pytest.raises(ModelError, match=said):
        built(NextLetter(layout), TEXT)


def test_the_number_of_classes_is_that_of_the_last_axis() -> None:
    with pytest.raises(ModelError, match=r"gives 5 outputs but the data has 3 classes \(x, y, z\)"):
        built(NextLetter(), Schema("multiclass", (LENGTH,), tuple("xyz"), positions=(LENGTH,)))


@pytest.mark.parametrize(
    ("spec", "kind"),
    [
        (fp.models.Linear(), "regression"),
        (fp.models.Logistic(), "binary"),
        (fp.models.Softmax(), "multiclass"),
        (fp.models.GaussianNB(), "binary"),
        (fp.models.MultinomialNB(), "multiclass"),
        (fp.models.Sklearn("SGDClassifier"), "binary"),
        (fp.models.Sklearn("SGDRegressor"), "regression"),
    ],
    ids=lambda value: (
        getattr(value, "estimator", type(value).__name__) if not isinstance(value, str) else value
    ),
)
def test_a_model_of_one_label_for_each_row_refuses_more(spec: Any, kind: Kind) -> None:
    classes = {"regression": (), "binary": (0, 1), "multiclass": (0, 1, 2)}[kind]
    with pytest.raises(
        ModelError, match=r"predicts one label for each row, but .* an array of shape \(6,\); use"
    ):
        spec.build(Schema(kind, (LENGTH,), classes, positions=(LENGTH,)))


def test_a_model_goes_to_another_process() -> None:
    model = built(NextLetter(), TEXT)
    # With what it has by now, which is this thread's own.
    expected = gradient(model, text())[0]
    other = pickle.loads(pickle.dumps(model))  # noqa: S301 (its own)
    assert gradient(other, text())[0] == expected


def clients() -> list[ClientData]:
    letters = np.array(list("abcde"))
    return [
        ClientData(id, Rows(part.x, letters[part.y]), Rows(held.x, letters[held.y]))
        for id, part, held in (("lyon", text(20, 1), text(7, 2)), ("nice", text(30, 3), text(9, 4)))
    ]


@pytest.fixture(scope="module")
def result() -> fp.Result:
    torch.manual_seed(0)
    algorithm = fp.FedAvg(local_epochs=1, batch_size=5, lr=2.0)
    return fp.train(Torch(NextLetter()), clients(), algorithm=algorithm, rounds=15, seed=0)


def test_training_learns_every_position(result: fp.Result) -> None:
    rows = text(11, seed=5)
    predicted = result.predict(rows.x)
    # The first letter tells the next, and so on: only a model that is trained at each position knows them all.
    np.testing.assert_array_equal(predicted, np.array(list("abcde"))[rows.y])
    shares = result.predict_proba(rows.x)
    assert shares.shape == (11, LENGTH, LETTERS)
    np.testing.assert_allclose(shares.sum(axis=-1), 1, rtol=1e-5)


def test_evaluation_counts_every_position_as_a_row(result: fp.Result) -> None:
    held_out = [client.test for client in clients()]
    true = np.concatenate([rows.y for rows in held_out]).reshape(-1)
    shares = np.concatenate([result.predict_proba(rows.x) for rows in held_out]).reshape(-1, LETTERS)
    assert result.evaluation.metrics["log_loss"] == pytest.approx(metrics.log_loss(true, shares), rel=1e-4)
    assert result.evaluation.sums["count"].sum() == true.size
    assert dict(result.evaluation.rows) == {"lyon": 7, "nice": 9}


def test_two_classes_at_every_pixel_have_their_probabilities_in_order() -> None:
    x, y = images("binary", 40).x, np.array(["sea", "sky"])[images("binary", 40).y]
    clients = [ClientData("lyon", Rows(x, y))]
    trained = fp.train(Torch(Pixels(1)), clients, algorithm=fp.FedSGD(lr=5.0), rounds=30)
    shares = trained.predict_proba(x)
    assert shares.shape == (40, 4, 3, 2)
    np.testing.assert_allclose(shares.sum(axis=-1), 1)
    np.testing.assert_array_equal(trained.predict(x), np.array(["sea", "sky"])[shares.argmax(axis=-1)])
    assert np.mean(trained.predict(x) == y) > 0.95


def test_the_command_line_gives_a_column_for_every_position(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    x, matrix = random.normal(size=(30, 2)), np.array([[1.0, 2.0, -1.0], [0.5, 0.0, 3.0]])
    spec = Torch("torch.nn:Linear", options={"in_features": 2, "out_features": 3})
    algorithm = fp.FedSGD(lr=0.5)
    trained = fp.train(spec, [ClientData("lyon", Rows(x, x @ matrix))], algorithm=algorithm, rounds=5)
    trained.save(tmp_path)
    np.savetxt(tmp_path / "rows.csv", x[:4], delimiter=",", header="a,b", comments="")
    answers = pd.read_csv(io.StringIO(call("predict", tmp_path, tmp_path / "rows.csv").stdout))
    assert list(answers.columns) == ["row", "prediction 1", "prediction 2", "prediction 3"]
    np.testing.assert_allclose(answers.iloc[:, 1:], trained.predict(x[:4]), rtol=1e-6)


def test_a_saved_model_predicts_at_every_position(result: fp.Result, tmp_path: Any) -> None:
    result.save(tmp_path)
    again = fp.Result.load(tmp_path, NextLetter())
    np.testing.assert_array_equal(again.predict(text().x), result.predict(text().x))


def test_a_preparation_written_down_keeps_the_positions(result: fp.Result) -> None:
    preparation = result.fitted.preparation
    again = Preparation.from_json(json.loads(json.dumps(preparation.to_json())))
    assert again.labels == preparation.labels
    assert again.schema == preparation.schema
    assert again.schema.positions == (LENGTH,)
