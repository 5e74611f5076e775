"""TensorFlow Federated: `build_weighted_fed_avg` with Keras models on the local C++ execution context.

It leaves a `worker_binary` process behind, which whoever started this script has to end.
"""

from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_federated as tff

from benchmarks.contestants.common import Clock, Run, asked
from benchmarks.contestants.other_layouts import layers, lstm_layers
from benchmarks.workloads import Array, Workload, cohorts, load, load_weights

keras = tf.keras


def new_model(workload: Workload) -> Any:
    """Return the workload's model in Keras."""
    dense, convolution, dropout = keras.layers.Dense, keras.layers.Conv2D, keras.layers.Dropout
    if workload.letter in "AB":
        drops = workload.letter == "A"
        stack = [
            convolution(32, 3, activation="relu"),
            convolution(64, 3, activation="relu"),
            keras.layers.MaxPool2D(2),
            *([dropout(0.25)] if drops else []),
            keras.layers.Flatten(),
            dense(128, activation="relu"),
            *([dropout(0.5)] if drops else []),
            dense(workload.classes),
        ]
    elif workload.letter == "C":
        stack = [dense(1)]
    elif workload.letter == "D":
        hidden = workload.hidden
        stack = [dense(hidden, activation="relu"), dense(hidden, activation="relu"), dense(workload.classes)]
    else:
        lstms = [keras.layers.LSTM(256, return_sequences=True) for _ in range(2)]
        stack = [keras.layers.Embedding(workload.classes, 8), *lstms, dense(workload.classes)]
    kind = tf.int32 if workload.predicts_sequences else tf.float32
    return keras.Sequential([keras.layers.InputLayer(workload.shape, dtype=kind), *stack])


def first_weights(run: Run) -> list[Array]:
    """Return the weights that all contestants start from, in the order of the Keras model."""
    weights = load_weights(run.workload, run.data)
    if run.workload.predicts_sequences:
        lstms = [part for layer in lstm_layers(weights) for part in layer]
        return [weights["embedding.weight"], *lstms, weights["scores.weight"].T, weights["scores.bias"]]
    return [part for layer in layers(run.workload, weights) for part in layer]


def new_loss(workload: Workload) -> Any:
    """Return the workload's mean loss, of logits."""
    if workload.classes == 1:
        return keras.losses.BinaryCrossentropy(from_logits=True)
    return keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def main(run: Run) -> None:
    workload, clock = run.workload, Clock()
    x, y = load(workload, run.data)
    if workload.classes == 1:
        y = y.astype(np.float32)[..., None]

    def rows(client: int) -> Any:
        dataset = tf.data.Dataset.from_tensor_slices((x[client], y[client]))
        return dataset.shuffle(workload.rows).batch(workload.batch_size)

    tff.backends.native.set_sync_local_cpp_execution_context(
        default_num_clients=workload.cohort, max_concurrent_computation_calls=run.workers
    )
    spec = rows(0).element_spec

    def model_for_clients() -> Any:
        return tff.learning.models.from_keras_model(
            new_model(workload), loss=new_loss(workload), input_spec=spec
        )

    process = tff.learning.algorithms.build_weighted_fed_avg(
        model_for_clients,
        client_optimizer_fn=tff.learning.optimizers.build_sgdm(workload.lr),
        server_optimizer_fn=tff.learning.optimizers.build_sgdm(1.0),
    )
    first = first_weights(run)
    state = process.initialize()
    start = tff.learning.models.ModelWeights(trainable=first, non_trainable=[])
    state = process.set_model_weights(state, start)
    clock.tick()
    for cohort in cohorts(workload, run.rounds):
        state = process.next(state, [rows(client) for client in cohort]).state
        clock.tick()

    def mean_loss(weights: list[Array]) -> float:
        model, loss = new_model(workload), new_loss(workload)
        model.set_weights(weights)
        return float(
            np.mean([loss(y[client], model(x[client], training=False)) for client in workload.judged])
        )

    last = list(process.get_model_weights(state).trainable)
    clock.report(mean_loss(first), mean_loss(last), concurrent_calls=run.workers)


if __name__ == "__main__":
    main(asked())
