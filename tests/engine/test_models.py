"""Claims about whole runs of models of other libraries: torch modules and scikit-learn estimators."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sklearn.linear_model
import sklearn.naive_bayes
from sklearn.datasets import load_breast_cancer

import fedpact as fp
from fedpact.core.errors import ModelError
from tests.engine.runs import last_state, outcome, same_bits, two_classes

torch = pytest.importorskip("torch")
nn = torch.nn


def network(width: int = 3, seed: int = 0) -> Any:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(width, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.2), nn.Linear(8, 1))


def train(module: Any, folder: Path | None = None, **changed: Any) -> fp.Result:
    settings = {"algorithm": fp.FedAvg(lr=0.1, local_epochs=2, batch_size=8), "rounds": 4, **changed}
    return fp.train(module, two_classes(), folder=folder, **settings)


X = np.concatenate([client.train.x for client in two_classes()])


def test_network_learns_breast_cancer() -> None:
    clients = fp.datasets.breast_cancer()
    result = fp.train(
        network(30),
        clients,
        preprocess=fp.Standardize(),
        algorithm=fp.FedAvg(lr=0.1, local_epochs=2, batch_size=16),
        rounds=8,
    )
    assert result.evaluation is not None
    assert result.evaluation.metrics["accuracy"] > 0.93
    assert result.history["train_loss"].iloc[-1] < 0.6 * result.history["train_loss"].iloc[0]


def test_model_is_a_module_that_computes_the_predictions() -> None:
    result = train(network())
    with torch.no_grad():
        probabilities = torch.sigmoid(result.model.eval()(torch.tensor(X, dtype=torch.float32))).numpy()
    np.testing.assert_allclose(result.predict_proba(X)[:, 1], probabilities[:, 0], rtol=1e-6)


def test_module_given_is_left_as_it_was() -> None:
    module = network()
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    train(module)
    assert all(torch.equal(before[name], tensor) for name, tensor in module.state_dict().items())
    assert module.training


def test_saved_network_is_loaded_with_a_module_of_its_architecture(tmp_path: Path) -> None:
    result = train(network())
    result.save(tmp_path)
    loaded = fp.Result.load(tmp_path, model=network(seed=1))
    assert same_bits(outcome(loaded), outcome(result))
    assert same_bits(loaded.predict_proba(X), result.predict_proba(X))
    fitted = fp.Fitted.load(tmp_path / "model.safetensors", network(seed=2))
    assert same_bits(fitted.predict_proba(X), result.predict_proba(X))
    assert result.evaluation is not None
    assert fp.evaluate(fitted, two_classes()).to_json() == result.evaluation.to_json()


def test_saved_network_without_its_code_says_what_is_missing(tmp_path: Path) -> None:
    train(network(), tmp_path, rounds=1)
    for load in (fp.Result.load, fp.Fitted.load):
        with pytest.raises(
            ModelError, match=r"Sequential.* give a module of\s+the same architecture: model=module"
        ):
            load(tmp_path)


def test_saved_network_is_refused_for_another_architecture(tmp_path: Path) -> None:
    train(network(), tmp_path, rounds=1)
    with pytest.raises(ModelError, match=r"does not fit this model"):
        fp.Result.load(tmp_path, model=nn.Linear(3, 1))


def test_network_of_a_factory_is_loaded_without_a_module(tmp_path: Path) -> None:
    model = fp.models.Torch("torch.nn:Linear", options={"in_features": 3, "out_features": 1})
    result = train(model, tmp_path)
    assert same_bits(fp.Result.load(tmp_path).predict_proba(X), result.predict_proba(X))


def test_job_with_a_factory_gives_the_bits_of_the_call() -> None:
    options = {"in_features": 3, "out_features": 1}
    by_call = train(fp.models.Torch("torch.nn:Linear", options=options))
    algorithm = {"name": "FedAvg", "lr": 0.1, "local_epochs": 2, "batch_size": 8}
    model = {"name": "Torch", "module": "torch.nn:Linear", "options": options}
    by_job = fp.run(fp.Job.of({"model": model, "algorithm": algorithm, "rounds": 4}), two_classes())
    assert by_job.job.digest == by_call.job.digest
    assert same_bits(outcome(by_job), outcome(by_call))


def test_statistics_of_batch_norm_are_averaged_over_the_rows() -> None:
    module = nn.Sequential(nn.BatchNorm1d(3, momentum=0.1), nn.Linear(3, 1))
    step = fp.FedAvg(lr=0.1, local_steps=1, batch_size=None)
    state = train(module, algorithm=step, rounds=1).model.state_dict()
    parts = [client.train.x for client in two_classes()]
    rows = [len(part) for part in parts]
    # torch: running ← 0.9·running + 0.1·batch, from 0 and 1, with the unbiased variance; then the mean over rows.
    mean = np.average([0.1 * part.mean(axis=0) for part in parts], axis=0, weights=rows)
    variance = np.average([0.9 + 0.1 * part.var(axis=0, ddof=1) for part in parts], axis=0, weights=rows)
    np.testing.assert_allclose(state["0.running_mean"].numpy(), mean, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(state["0.running_var"].numpy(), variance, rtol=1e-5)
    assert state["0.num_batches_tracked"] == 1


ALGORITHMS = {
    "FedAvg": fp.FedAvg(lr=0.1, local_epochs=2, batch_size=8),
    "FedAdam": fp.FedAdam(lr=0.1, local_epochs=2, batch_size=8),
    "SCAFFOLD": fp.SCAFFOLD(lr=0.1, local_epochs=2, batch_size=8),
    "Cyclic": fp.Cyclic(lr=0.1, local_epochs=2, batch_size=8),
}


@pytest.mark.parametrize("stopped_after", [1, 3])
@pytest.mark.parametrize("algorithm", ALGORITHMS.values(), ids=ALGORITHMS)
def test_network_with_dropout_is_resumed_to_the_same_bits(
    algorithm: Any, stopped_after: int, tmp_path: Path
) -> None:
    whole = train(network(), tmp_path / "whole", algorithm=algorithm)
    train(network(), tmp_path / "run", algorithm=algorithm, rounds=stopped_after)
    resumed = train(network(), tmp_path / "run", algorithm=algorithm, resume=True)
    assert same_bits(outcome(resumed), outcome(whole))


def test_network_with_other_weights_to_start_from_is_another_job(tmp_path: Path) -> None:
    train(network(), tmp_path, rounds=1)
    with pytest.raises(
        fp.FedpactError, match=r"holds a run of another job: model\.weights was .* and is .* now"
    ):
        train(network(seed=1), tmp_path, resume=True)


def test_network_starts_from_a_state_dict_or_a_model_file(tmp_path: Path) -> None:
    module, still = network(seed=1), fp.FedAvg(lr=0)
    torch.save(module.state_dict(), tmp_path / "state.pt")
    trained = train(network(), rounds=2)
    trained.fitted.save(tmp_path / "model.safetensors")
    plain = nn.Sequential(nn.Linear(3, 2), nn.ReLU(), nn.Linear(2, 1))
    torch.save(plain.state_dict(), tmp_path / "plain.pt")
    started = train(nn.Sequential(nn.Linear(3, 2), nn.ReLU(), nn.Linear(2, 1)), algorithm=still, rounds=1,
                    initial=tmp_path / "plain.pt")  # fmt: skip
    assert all(
        torch.equal(started.model.state_dict()[name], value) for name, value in plain.state_dict().items()
    )
    for path, expected in (
        ("state.pt", module.state_dict()),
        ("model.safetensors", trained.model.state_dict()),
    ):
        state = train(network(), algorithm=still, rounds=1, initial=tmp_path / path).model.state_dict()
        for name in ("0.weight", "1.bias", "4.weight"):
            assert torch.equal(state[name], expected[name])


class Frozen(nn.Module):
    """A fixed first layer and a trained second one."""

    def __init__(self, scale: float = 1.0) -> None:
        super().__init__()
        self.body = nn.Linear(3, 4)
        self.head = nn.Linear(4, 1)
        with torch.no_grad():
            self.body.weight.copy_(torch.arange(12.0).reshape(4, 3) * scale)
        self.body.requires_grad_(False)
        nn.init.zeros_(self.body.bias)

    def forward(self, x: Any) -> Any:
        return self.head(torch.tanh(self.body(x)))


def test_frozen_layers_do_not_travel_but_are_in_the_model_file(tmp_path: Path) -> None:
    result = train(Frozen(), tmp_path, rounds=2)
    # The head has four weights and a bias, of 4 bytes each.
    assert result.download_bytes == 2 * 4 * (5 * 4)
    loaded = fp.Result.load(tmp_path, model=Frozen())
    assert same_bits(loaded.predict_proba(X), result.predict_proba(X))


def test_other_values_of_frozen_layers_are_refused(tmp_path: Path) -> None:
    train(Frozen(), tmp_path, rounds=1)
    with pytest.raises(ModelError, match=r"body\.weight"):
        fp.Result.load(tmp_path, model=Frozen(scale=2.0))
    with pytest.raises(ModelError, match=r"body\.weight"):
        train(Frozen(scale=2.0), initial=tmp_path / "model.safetensors")


def test_network_with_frozen_layers_starts_from_its_model_file(tmp_path: Path) -> None:
    trained = train(Frozen(), rounds=2)
    trained.fitted.save(tmp_path / "model.safetensors")
    still = train(Frozen(), algorithm=fp.FedAvg(lr=0), rounds=1, initial=tmp_path / "model.safetensors")
    assert still.weights == trained.weights


def test_network_for_three_classes_and_one_for_numbers() -> None:
    clients = two_classes()

    def relabelled(of: Any) -> list[fp.ClientData]:
        return [
            fp.ClientData(c.id, *(fp.Rows(r.x, of(r.x[:, 0])) for r in (c.train, c.test) if r is not None))
            for c in clients
        ]

    three = fp.train(nn.Linear(3, 3), relabelled(lambda x: np.digitize(x, [-0.3, 0.8])), rounds=2)
    np.testing.assert_allclose(three.predict_proba(X).sum(axis=1), 1, rtol=1e-6)
    assert set(three.predict(X)) <= {0, 1, 2}
    numbers = fp.train(nn.Linear(3, 1), relabelled(lambda x: 2 * x + 1), rounds=2)
    assert numbers.evaluation is not None
    assert "rmse" in numbers.evaluation.metrics


def test_network_for_another_width_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(ModelError):
        train(network(width=5), tmp_path / "run")
    assert not any(path.is_file() for path in (tmp_path / "run").rglob("*"))


def breast_cancer() -> tuple[fp.Federation, Any, Any]:
    clients = fp.datasets.breast_cancer()
    pooled = clients.pooled().train
    return clients, pooled.x.to_numpy(), pooled.y


@pytest.mark.parametrize(
    "model", [fp.models.GaussianNB(), sklearn.naive_bayes.GaussianNB()], ids=["ours", "theirs"]
)
def test_gaussian_naive_bayes_is_that_of_scikit_learn_on_the_pooled_rows(model: Any) -> None:
    clients, x, y = breast_cancer()
    result = fp.train(model, clients)
    theirs = sklearn.naive_bayes.GaussianNB().fit(x, y)
    np.testing.assert_allclose(
        result.predict_proba(clients.pooled().train.x), theirs.predict_proba(x), atol=1e-9
    )
    np.testing.assert_allclose(result.model["mean"], theirs.theta_, rtol=1e-13)
    np.testing.assert_allclose(result.model["variance"], theirs.var_, rtol=1e-9)
    assert len(result.history) == 1
    assert result.stopped == "the algorithm has converged"


def test_multinomial_naive_bayes_is_that_of_scikit_learn_on_the_pooled_rows() -> None:
    x, y = load_breast_cancer(return_X_y=True)
    counts = np.floor(x * 3).astype(np.int64)
    clients = [fp.ClientData(str(i), fp.Rows(counts[i::3], y[i::3])) for i in range(3)]
    result = fp.train(sklearn.naive_bayes.MultinomialNB(alpha=0.5), clients)
    theirs = sklearn.naive_bayes.MultinomialNB(alpha=0.5).fit(counts, y)
    np.testing.assert_allclose(result.predict_proba(counts), theirs.predict_proba(counts), atol=1e-8)


def sgd() -> Any:
    return sklearn.linear_model.SGDClassifier(
        loss="log_loss", learning_rate="constant", eta0=0.05, alpha=1e-3, random_state=0
    )


def test_estimator_of_scikit_learn_learns_and_comes_back_as_one() -> None:
    clients = fp.datasets.breast_cancer()
    result = fp.train(
        sgd(), clients, preprocess=fp.Standardize(), algorithm=fp.FedAvg(local_epochs=1), rounds=5
    )
    assert result.evaluation is not None
    assert result.evaluation.metrics["accuracy"] > 0.93
    estimator = result.model
    assert type(estimator) is sklearn.linear_model.SGDClassifier
    prepared = result.fitted.preparation.examples(clients.pooled().train.x, "float64")
    import pandas as pd

    frame = pd.DataFrame(prepared, columns=list(result.fitted.model.schema.features))
    assert (estimator.predict(frame) == result.predict(clients.pooled().train.x)).all()


def test_estimator_of_scikit_learn_is_resumed_to_the_same_bits_and_loaded_from_its_file(
    tmp_path: Path,
) -> None:
    settings: dict[str, Any] = {"algorithm": fp.FedAvg(local_epochs=2)}
    whole = train(sgd(), tmp_path / "whole", **settings)
    train(sgd(), tmp_path / "run", rounds=2, **settings)
    resumed = train(sgd(), tmp_path / "run", resume=True, **settings)
    assert same_bits(outcome(resumed), outcome(whole))
    assert same_bits(last_state(tmp_path / "run"), last_state(tmp_path / "whole"))
    assert same_bits(fp.Result.load(tmp_path / "run").predict_proba(X), whole.predict_proba(X))


def test_estimator_that_cannot_be_averaged_is_refused(tmp_path: Path) -> None:
    from sklearn.ensemble import RandomForestClassifier

    with pytest.raises(ModelError, match="RandomForestClassifier cannot be trained over clients"):
        train(RandomForestClassifier(), tmp_path / "run")
    assert not (tmp_path / "run").exists()
