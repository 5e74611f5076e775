"""Stacked, by hand: the floor with several clients stepped together by `torch.func.vmap`."""

import torch
from torch import Tensor
from torch.func import functional_call, grad, vmap

from benchmarks.contestants.common import Clock, Run, asked
from benchmarks.contestants.shared_memory import Together, train_together
from benchmarks.torch_models import loss, mean_loss, model, tensors

# Clients in one call: the whole share of a process for a regression; more than 25 networks gained nothing.
TOGETHER = {"C": 250, "D": 25}


class Stack:
    """The workload's model as a function of its weights, for many clients at once.

    Attributes:
        start: the weights that all contestants start from, flat.
    """

    def __init__(self, run: Run) -> None:
        self._workload = workload = run.workload
        module = model(workload, run.data)
        parameters = {name: parameter.detach() for name, parameter in module.named_parameters()}
        self.start = torch.cat([parameter.reshape(-1) for parameter in parameters.values()])
        self._shapes = {name: parameter.shape for name, parameter in parameters.items()}

        def client_loss(weights: dict[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
            return loss(workload, functional_call(module, weights, (x,)), y)

        self._gradients = vmap(grad(client_loss))

    def named(self, flat: Tensor) -> dict[str, Tensor]:
        """Return the parts of a flat vector by name, as views of it."""
        parts = flat.split([shape.numel() for shape in self._shapes.values()])
        return {
            name: part.view(shape) for (name, shape), part in zip(self._shapes.items(), parts, strict=True)
        }

    def epoch(self, start: dict[str, Tensor], x: Tensor, y: Tensor) -> dict[str, Tensor]:
        """Train clients on their rows [clients, rows, ...] in order; return their weights [clients, ...]."""
        weights = {name: part.expand(len(x), *part.shape).clone() for name, part in start.items()}
        size, lr = self._workload.batch_size, self._workload.lr
        for first in range(0, x.shape[1], size):
            gradients = self._gradients(weights, x[:, first : first + size], y[:, first : first + size])
            for name, part in weights.items():
                part.sub_(gradients[name], alpha=lr)
        return weights


def train(together: Together) -> None:
    """Train this process's share of every cohort, many clients at once."""
    torch.set_num_threads(1)
    workload, stack = together.run.workload, Stack(together.run)
    x, y = tensors(workload, together.run.data)
    start = stack.named(together.present)
    for mine, share in together.rounds():
        parts = stack.named(share)
        for clients in torch.from_numpy(mine).split(TOGETHER[workload.letter]):
            for name, weights in stack.epoch(start, x[clients], y[clients]).items():
                parts[name].add_(weights.sum(0), alpha=1 / workload.cohort)


def main(run: Run) -> None:
    clock, stack = Clock(), Stack(run)
    trained = train_together(run, stack.start, train, clock)
    clock.report(
        mean_loss(run.workload, run.data),
        mean_loss(run.workload, run.data, stack.named(trained)),
        processes=run.workers,
        threads=1,
        clients_together=TOGETHER[run.workload.letter],
    )


if __name__ == "__main__":
    main(asked())
