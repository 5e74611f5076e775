"""Floor, by hand: one resident model per process, one flat parameter vector, sums in shared memory.

A reference point, not a bound: it trains clients one at a time, which `stacked` beats where models are small.
"""

import torch
from torch import Tensor, nn

from benchmarks.contestants.common import Clock, Run, asked
from benchmarks.contestants.shared_memory import Together, train_together
from benchmarks.torch_models import loss, mean_loss, model, tensors
from benchmarks.workloads import Workload


class FlatModel:
    """A module whose parameters are views of one vector.

    Attributes:
        flat: the vector; the parameters change with it.
        parameters: name → view.
    """

    def __init__(self, module: nn.Module) -> None:
        self._module = module.train()
        self.parameters = dict(module.named_parameters())
        self.flat = torch.cat([parameter.detach().reshape(-1) for parameter in self.parameters.values()])
        pieces = self.flat.split([parameter.numel() for parameter in self.parameters.values()])
        for parameter, piece in zip(self.parameters.values(), pieces, strict=True):
            parameter.data = piece.view(parameter.shape)

    def epoch(self, workload: Workload, x: Tensor, y: Tensor) -> None:
        """Train on one client's rows, in order."""
        parameters: list[Tensor] = list(self.parameters.values())
        for inputs, labels in zip(x.split(workload.batch_size), y.split(workload.batch_size), strict=True):
            gradients = torch.autograd.grad(loss(workload, self._module(inputs), labels), parameters)
            with torch.no_grad():
                torch._foreach_add_(parameters, gradients, alpha=-workload.lr)


def train(together: Together) -> None:
    """Train this process's share of every cohort, one client after another."""
    torch.set_num_threads(1)
    torch.manual_seed(together.rank)
    workload, data = together.run.workload, together.run.data
    held = FlatModel(model(workload, data))
    x, y = tensors(workload, data)
    for clients, share in together.rounds():
        for client in clients:
            held.flat.copy_(together.present)
            held.epoch(workload, x[client], y[client])
            share.add_(held.flat, alpha=1 / workload.cohort)


def main(run: Run) -> None:
    clock, held = Clock(), FlatModel(model(run.workload, run.data))
    held.flat.copy_(train_together(run, held.flat, train, clock))
    weights = {name: parameter.detach() for name, parameter in held.parameters.items()}
    clock.report(
        mean_loss(run.workload, run.data),
        mean_loss(run.workload, run.data, weights),
        processes=run.workers,
        threads=1,
        parameters=len(held.flat),
    )


if __name__ == "__main__":
    main(asked())
