"""Fed-Heart-Disease: 15 rounds × 100 steps of 4 rows × 4 clients in one process, seconds, best of three."""

import time
from typing import Any

import fedpact as fp


def measure() -> dict[str, float]:
    clients = fp.datasets.heart()
    figures = {"logistic regression in numpy (bar: 2)": _seconds(fp.models.Logistic(), clients)}
    try:
        import torch
    except ImportError:
        return figures
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        torch.manual_seed(0)
        figures["the same as a torch module (bar: 2)"] = _seconds(torch.nn.Linear(13, 1), clients)
        figures["a hand-written torch loop, for comparison"] = min(_hand_written(clients) for _ in range(3))
    finally:
        torch.set_num_threads(threads)
    return figures


def _seconds(model: Any, clients: fp.Federation) -> float:
    times = []
    for _ in range(3):
        start = time.perf_counter()
        fp.train(
            model,
            clients,
            preprocess=[fp.Standardize()],
            algorithm=fp.FedAvg(local_steps=100, batch_size=4, lr=0.003),
            rounds=15,
        )
        times.append(time.perf_counter() - start)
    return min(times)


def _hand_written(clients: fp.Federation) -> float:
    """The loop as people write it: a copy of the module and a new optimiser for every client and round."""
    import copy

    import torch

    start = time.perf_counter()
    table = clients.pooled().train.x
    mean, std = table.mean(), table.std(ddof=0)
    rows = [
        (
            torch.tensor(((c.train.x - mean) / std).to_numpy(), dtype=torch.float32),
            torch.tensor(c.train.y, dtype=torch.float32),
        )
        for c in clients
    ]
    model, loss = torch.nn.Linear(13, 1), torch.nn.BCEWithLogitsLoss()
    total = sum(len(x) for x, _ in rows)
    for _ in range(15):
        mean_state = {name: torch.zeros_like(value) for name, value in model.state_dict().items()}
        for x, y in rows:
            local = copy.deepcopy(model)
            optimizer = torch.optim.SGD(local.parameters(), lr=0.003)
            order = torch.randperm(len(x))
            for step in range(100):
                index = order[(4 * step) % len(x) : (4 * step) % len(x) + 4]
                optimizer.zero_grad()
                loss(local(x[index])[:, 0], y[index]).backward()
                optimizer.step()
            for name, value in local.state_dict().items():
                mean_state[name] += value * (len(x) / total)
        model.load_state_dict(mean_state)
    return time.perf_counter() - start
