"""The torch models' weights as haiku and Keras lay them out, so that FedJAX and TFF start where all others do."""

from collections.abc import Mapping

import numpy as np

from benchmarks.workloads import Array, Workload


def layers(workload: Workload, weights: Mapping[str, Array]) -> list[tuple[Array, Array]]:
    """Return (kernel, bias) of each convolution and dense layer, in order, channels last.

    Convolutions are [height, width, in, out] instead of torch's [out, in, height, width], dense layers [in, out]
    instead of [out, in]. The first dense layer behind convolutions reads the image with its channels last.
    """
    names = [name.removesuffix("weight") for name in weights if name.endswith("weight")]
    converted, channels = [], 0
    for name in names:
        kernel, bias = weights[f"{name}weight"], weights[f"{name}bias"]
        if kernel.ndim == 4:
            channels = len(kernel)
            kernel = kernel.transpose(2, 3, 1, 0)
        elif channels:
            side = round((kernel.shape[1] // channels) ** 0.5)
            flat = kernel.reshape(-1, channels, side, side).transpose(2, 3, 1, 0)
            kernel, channels = flat.reshape(-1, len(kernel)), 0
        else:
            kernel = kernel.T
        converted.append((np.ascontiguousarray(kernel), bias))
    return converted


def lstm_layers(weights: Mapping[str, Array]) -> list[tuple[Array, Array, Array]]:
    """Return (kernel, recurrent kernel, bias) of each LSTM layer of workload E, gates in the order i, f, g, o.

    torch adds two biases where haiku and Keras have one; it starts at their sum and from then on moves half as
    fast as torch's two together.
    """
    return [
        (
            weights[f"lstm.weight_ih_l{layer}"].T,
            weights[f"lstm.weight_hh_l{layer}"].T,
            weights[f"lstm.bias_ih_l{layer}"] + weights[f"lstm.bias_hh_l{layer}"],
        )
        for layer in range(2)
    ]


def haiku_lstm(kernel: Array, recurrent: Array, bias: Array) -> tuple[Array, Array]:
    """Return an LSTM layer as haiku has it: one kernel, gates in the order i, g, f, o, and 1 added to f's score."""
    order = [0, 2, 1, 3]
    together = np.vstack([kernel, recurrent])
    units = len(bias) // 4
    shifted = bias.copy()
    shifted[units : 2 * units] -= 1
    return (
        np.concatenate([together.reshape(-1, 4, units)[:, gate] for gate in order], axis=1),
        np.concatenate([shifted.reshape(4, units)[gate] for gate in order]),
    )
