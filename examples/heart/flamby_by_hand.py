"""FLamby's procedure in plain torch, drawing in FLamby's order: pooled training, FedAvg and Cyclic.

With FLamby's seeds it gives the published accuracies row for row. Fedpact's runs of the same algorithms differ from
these in which rows meet in a batch, and in computing with 64 bits.
"""

from collections.abc import Iterator
from copy import deepcopy
from functools import cache
from typing import Any

import numpy as np
import pandas as pd
import torch
from flamby_heart import CENTRES, METHODS, ROUNDS, SEEDS, clients, held_out
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

Loader = DataLoader[tuple[Tensor, ...]]


class Batches:
    """Batches without an end: FLamby's loader goes on in the next round where it was."""

    def __init__(self, loader: Loader) -> None:
        self._loader, self._epoch = loader, iter(loader)

    def __iter__(self) -> Iterator[tuple[Tensor, ...]]:
        return self

    def __next__(self) -> tuple[Tensor, ...]:
        for batch in self._epoch:
            return batch
        self._epoch = iter(self._loader)
        return next(self._epoch)


@cache
def fedavg() -> pd.DataFrame:
    """Return the accuracies of FedAvg, one row for each seed."""
    return _table({seed: _fedavg(seed) for seed in SEEDS})


@cache
def cyclic() -> pd.DataFrame:
    """Return the accuracies of Cyclic as FLamby runs it, one row for each seed.

    Every client goes on training its own copy of the first model, and the first client's copy is the one judged.
    """
    return _table({seed: _cyclic(seed) for seed in SEEDS})


@cache
def pooled() -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the accuracies of pooled training on test rows scaled per centre, and on test rows scaled as in training.

    Adam, rate 1e-3, 50 epochs, on the rows of all centres scaled by the pooled mean and deviation.
    """
    recorded = clients("federated")
    table = pd.concat([centre.train.x for centre in recorded])
    mean, deviation = table.mean(), table.std(ddof=1) + 1e-9
    x, y = _tensor((table - mean) / deviation), _tensor(np.concatenate([c.train.y for c in recorded]))
    models = {seed: _pooled(seed, x, y) for seed in SEEDS}
    alike = {seed: _accuracies(model, mean, deviation) for seed, model in models.items()}
    return _table(models), pd.DataFrame.from_dict(alike, orient="index", columns=CENTRES)


def _pooled(seed: int, x: Tensor, y: Tensor) -> nn.Module:
    torch.manual_seed(seed)
    model = nn.Linear(13, 1)
    torch.manual_seed(seed)
    optimizer, loader = torch.optim.Adam(model.parameters(), lr=0.001), _loader(x, y)
    for _ in range(50):
        _descend(model, optimizer, iter(loader), len(loader))
    return model


def _fedavg(seed: int) -> nn.Module:
    model, batches, sizes = _begin(seed)
    copies = [deepcopy(model) for _ in sizes]
    optimizers = [torch.optim.SGD(copy.parameters(), lr=METHODS["FedAvg"].lr) for copy in copies]
    for _ in range(ROUNDS):
        for copy, optimizer, own in zip(copies, optimizers, batches, strict=True):
            copy.load_state_dict(model.state_dict())
            _descend(copy, optimizer, own, 100)
        trained = [copy.state_dict() for copy in copies]
        mean = {
            name: sum(size * state[name] for size, state in zip(sizes, trained, strict=True)) / sum(sizes)
            for name in model.state_dict()
        }
        model.load_state_dict(mean)
    return model


def _cyclic(seed: int) -> nn.Module:
    model, batches, _ = _begin(seed)
    copies = [deepcopy(model) for _ in CENTRES]
    optimizers = [torch.optim.SGD(copy.parameters(), lr=METHODS["Cyclic"].lr) for copy in copies]
    generator = np.random.default_rng(seed)
    turns = np.concatenate([generator.permutation(len(CENTRES)) for _ in range(4)])[:ROUNDS]
    for turn in turns:
        _descend(copies[turn], optimizers[turn], batches[turn], 100)
    return copies[0]


def _begin(seed: int) -> tuple[nn.Module, list[Batches], list[int]]:
    torch.manual_seed(seed)
    model = nn.Linear(13, 1)
    rows = [centre.train for centre in clients("per centre")]
    batches = [Batches(_loader(_tensor(each.x), _tensor(each.y))) for each in rows]
    torch.manual_seed(seed)
    return model, batches, [len(each) for each in rows]


def _descend(model: nn.Module, optimizer: Any, batches: Iterator[tuple[Tensor, ...]], steps: int) -> None:
    loss = nn.BCEWithLogitsLoss()
    for _ in range(steps):
        x, y = next(batches)
        optimizer.zero_grad()
        loss(model(x)[:, 0], y).backward()
        optimizer.step()


def _loader(x: Tensor, y: Tensor) -> Loader:
    return DataLoader(TensorDataset(x, y), batch_size=4, shuffle=True)


def _table(models: dict[int, nn.Module]) -> pd.DataFrame:
    rows = {seed: _accuracies(model) for seed, model in models.items()}
    return pd.DataFrame.from_dict(rows, orient="index", columns=CENTRES).rename_axis("seed")


def _accuracies(model: nn.Module, mean: Any = None, deviation: Any = None) -> list[float]:
    """Judge a model on test rows scaled per centre, or by the mean and deviation given."""
    found = []
    for rows in map(held_out, clients("per centre" if mean is None else "federated")):
        x = rows.x if mean is None else (rows.x - mean) / deviation
        with torch.no_grad():
            positive = model(_tensor(x))[:, 0].numpy() > 0
        found.append(float(np.mean(positive == rows.y)))
    return found


def _tensor(values: Any) -> Tensor:
    return torch.tensor(np.asarray(values, dtype=np.float32))
