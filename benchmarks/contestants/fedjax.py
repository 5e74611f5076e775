"""FedJAX: `algorithms.fed_avg.federated_averaging` with haiku models on the jit backend.

Its pmap backend does not run on the jax versions that it installs with, so its only use of further cores is XLA's own.
"""

from collections.abc import Callable, Iterator
from typing import Any

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np

# FedJAX 0.0.17 calls an alias that jax has removed.
if not hasattr(jax, "tree_map"):
    jax.tree_map = jax.tree_util.tree_map

import fedjax
from fedjax.algorithms import fed_avg

from benchmarks.contestants.common import Clock, Run, asked
from benchmarks.contestants.other_layouts import haiku_lstm, layers, lstm_layers
from benchmarks.workloads import Workload, load, load_weights

Batch = dict[str, Any]
Forward = Callable[..., Any]


def forward(workload: Workload) -> Forward:
    """Return the workload's model as a haiku function of a batch."""

    def cnn(batch: Batch, train: bool = True) -> Any:
        drops = workload.letter == "A" and train
        x = jax.nn.relu(hk.Conv2D(32, 3, padding="VALID")(batch["x"]))
        x = jax.nn.relu(hk.Conv2D(64, 3, padding="VALID")(x))
        x = hk.MaxPool((1, 2, 2, 1), (1, 2, 2, 1), "VALID")(x)
        x = hk.dropout(hk.next_rng_key(), 0.25, x) if drops else x
        x = jax.nn.relu(hk.Linear(128)(hk.Flatten()(x)))
        x = hk.dropout(hk.next_rng_key(), 0.5, x) if drops else x
        return hk.Linear(workload.classes)(x)

    def regression(batch: Batch, train: bool = True) -> Any:
        return hk.Linear(1)(batch["x"])[..., 0]

    def mlp(batch: Batch, train: bool = True) -> Any:
        x = jax.nn.relu(hk.Linear(workload.hidden)(batch["x"]))
        x = jax.nn.relu(hk.Linear(workload.hidden)(x))
        return hk.Linear(workload.classes)(x)

    def lstm(batch: Batch, train: bool = True) -> Any:
        x = hk.Embed(workload.classes, 8)(batch["x"].T)
        core = hk.DeepRNN([hk.LSTM(256), hk.LSTM(256)])
        # Unrolling 80 steps in XLA takes minutes to compile.
        outputs, _ = hk.dynamic_unroll(core, x, core.initial_state(x.shape[1]))
        return hk.Linear(workload.classes)(outputs).transpose(1, 0, 2)

    return {"A": cnn, "B": cnn, "C": regression, "D": mlp, "E": lstm}[workload.letter]


def row_losses(workload: Workload) -> Callable[[Batch, Any], Any]:
    """Return the function from a batch and scores to a loss for each row."""

    def log_loss(batch: Batch, scores: Any) -> Any:
        return jnp.logaddexp(0.0, scores) - batch["y"] * scores

    def cross_entropy(batch: Batch, scores: Any) -> Any:
        return fedjax.metrics.unreduced_cross_entropy_loss(batch["y"], scores)

    def over_positions(batch: Batch, scores: Any) -> Any:
        return cross_entropy(batch, scores).mean(-1)

    return {"C": log_loss, "E": over_positions}.get(workload.letter, cross_entropy)


def first_parameters(run: Run, like: Any) -> Any:
    """Return the weights that all contestants start from, in the tree that haiku made."""
    weights = load_weights(run.workload, run.data)
    if run.workload.predicts_sequences:
        first, second = (haiku_lstm(*layer) for layer in lstm_layers(weights))
        arrays = {
            "lstm/linear": first,
            "lstm_1/linear": second,
            "linear": (weights["scores.weight"].T, weights["scores.bias"]),
        }
    else:
        # By their names, convolutions come before dense layers, as in the model.
        arrays = dict(zip(like, layers(run.workload, weights), strict=True))
    filled = {
        name: {"w": jnp.asarray(kernel), "b": jnp.asarray(bias)} for name, (kernel, bias) in arrays.items()
    }
    if run.workload.predicts_sequences:
        filled["embed"] = {"embeddings": jnp.asarray(weights["embedding.weight"])}
    shapes, wanted = (jax.tree_util.tree_map(jnp.shape, tree) for tree in (filled, like))
    if shapes != wanted:
        raise ValueError(f"the weights {shapes} do not fit haiku's {wanted}.")
    return filled


def main(run: Run) -> None:
    workload, clock = run.workload, Clock()
    x, y = load(workload, run.data)
    fedjax.set_for_each_client_backend("jit")
    losses = row_losses(workload)
    model = fedjax.create_model_from_haiku(
        hk.transform(forward(workload)),
        {"x": np.asarray(x[0][:1]), "y": np.asarray(y[0][:1])},
        train_loss=losses,
        train_kwargs={"train": True},
        eval_kwargs={"train": False},
    )
    clients = fedjax.InMemoryFederatedData({k: {"x": x[k], "y": y[k]} for k in range(workload.clients)})
    sampler = fedjax.client_samplers.UniformGetClientSampler(clients, num_clients=workload.cohort, seed=0)
    algorithm = fed_avg.federated_averaging(
        fedjax.model_grad(model),
        fedjax.optimizers.sgd(workload.lr),
        fedjax.optimizers.sgd(1.0),
        fedjax.ShuffleRepeatBatchHParams(
            batch_size=workload.batch_size, num_epochs=1, drop_remainder=False, seed=0
        ),
    )
    first = first_parameters(run, model.init(jax.random.PRNGKey(0)))
    state = algorithm.init(first)
    clock.tick()
    for round in range(run.rounds):
        sampler.set_round_num(round)
        state, diagnostics = algorithm.apply(state, sampler.sample())
        jax.block_until_ready((state.params, diagnostics))
        clock.tick()

    def judged() -> Iterator[Batch]:
        yield from ({"x": x[k], "y": y[k]} for k in workload.judged)

    def mean_loss(parameters: Any) -> float:
        return float(np.mean([losses(b, model.apply_for_eval(parameters, b)).mean() for b in judged()]))

    clock.report(mean_loss(first), mean_loss(state.params), processes=1, devices=jax.local_device_count())


if __name__ == "__main__":
    main(asked())
