"""The workloads' models in torch, one definition for every contestant that runs torch."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.workloads import Array, Workload, load, load_weights


class ChannelsFirst(nn.Module):
    """Turns images [n, height, width, channels] into what torch's convolutions take."""

    def forward(self, x: Tensor) -> Tensor:
        return x.permute(0, 3, 1, 2)


class NextCharacter(nn.Module):
    """Scores [n, positions, classes] of the character that follows each of [n, positions]."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(classes, 8)
        self.lstm = nn.LSTM(8, 256, num_layers=2, batch_first=True)
        self.scores = nn.Linear(256, classes)

    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = self.scores(self.lstm(self.embedding(x))[0])
        return scores


def _cnn(workload: Workload) -> nn.Module:
    height, _, channels = workload.shape
    flat = 64 * ((height - 4) // 2) ** 2
    # pfl-research's CIFAR-10 model has dropout; its FEMNIST model is taken without, as LEAF has it.
    drops = workload.letter == "A"
    return nn.Sequential(
        ChannelsFirst(),
        nn.Conv2d(channels, 32, 3),
        nn.ReLU(),
        nn.Conv2d(32, 64, 3),
        nn.ReLU(),
        nn.MaxPool2d(2),
        *([nn.Dropout(0.25)] if drops else []),
        nn.Flatten(),
        nn.Linear(flat, 128),
        nn.ReLU(),
        *([nn.Dropout(0.5)] if drops else []),
        nn.Linear(128, workload.classes),
    )


def _mlp(workload: Workload) -> nn.Module:
    (width,), hidden = workload.shape, workload.hidden
    return nn.Sequential(
        nn.Linear(width, hidden),
        nn.ReLU(),
        nn.Linear(hidden, hidden),
        nn.ReLU(),
        nn.Linear(hidden, workload.classes),
    )


def new_model(workload: Workload) -> nn.Module:
    """Return the workload's model with weights of its own."""
    if workload.letter in "AB":
        return _cnn(workload)
    if workload.letter == "C":
        return nn.Linear(workload.shape[0], 1)
    if workload.letter == "D":
        return _mlp(workload)
    return NextCharacter(workload.classes)


def first_weights(workload: Workload) -> dict[str, Array]:
    """Return the weights that all contestants start from, drawn by torch's own rules from a fixed seed."""
    torch.manual_seed(0)
    return {name: tensor.numpy() for name, tensor in new_model(workload).state_dict().items()}


def model(workload: Workload, folder: Path) -> nn.Module:
    """Return the workload's model with the weights that all contestants start from."""
    module = new_model(workload)
    weights = load_weights(workload, folder)
    module.load_state_dict({name: torch.from_numpy(array) for name, array in weights.items()})
    return module


def loss(workload: Workload, outputs: Tensor, labels: Tensor) -> Tensor:
    """Return the mean loss over rows, and over positions where there are such."""
    if workload.classes == 1:
        return functional.binary_cross_entropy_with_logits(outputs.squeeze(-1), labels)
    if workload.predicts_sequences:
        return functional.cross_entropy(outputs.flatten(0, 1), labels.flatten())
    return functional.cross_entropy(outputs, labels)


def tensors(workload: Workload, folder: Path, device: str = "cpu") -> tuple[Tensor, Tensor]:
    """Return all clients' features and labels; on the CPU, float features share the memory map's pages."""
    x, y = load(workload, folder)
    features = torch.from_numpy(np.asarray(x, np.int64) if workload.predicts_sequences else x)
    labels = torch.from_numpy(np.asarray(y, np.float32 if workload.classes == 1 else np.int64))
    return features.to(device), labels.to(device)


def mean_loss(workload: Workload, folder: Path, weights: Mapping[str, Any] | None = None) -> float:
    """Return the mean loss over the judged clients' rows.

    Args:
        workload: the workload.
        folder: where its files are.
        weights: by name, tensors or arrays; None for those that all start from.
    """
    module = model(workload, folder).eval()
    if weights is not None:
        # A name that does not fit, or a shape, is an error of load_state_dict.
        module.load_state_dict({name: torch.as_tensor(value) for name, value in weights.items()})
    x, y = tensors(workload, folder)
    with torch.no_grad():
        losses = [float(loss(workload, module(x[i]), y[i])) for i in workload.judged]
    return sum(losses) / len(losses)
