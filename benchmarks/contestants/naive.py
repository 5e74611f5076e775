"""Naive, by hand: the loop that people write first, a copy of the module and an optimiser for every client."""

import copy

import torch
from torch.utils.data import DataLoader, TensorDataset

from benchmarks.contestants.common import Clock, Run, asked
from benchmarks.torch_models import loss, mean_loss, model, tensors
from benchmarks.workloads import cohorts


def main(run: Run) -> None:
    workload, clock = run.workload, Clock()
    x, y = tensors(workload, run.data, run.device)
    module = model(workload, run.data).to(run.device)
    torch.manual_seed(0)
    clock.tick()
    for cohort in cohorts(workload, run.rounds):
        states = []
        for client in cohort:
            local = copy.deepcopy(module).train()
            optimizer = torch.optim.SGD(local.parameters(), lr=workload.lr)
            rows = TensorDataset(x[client], y[client])
            for inputs, labels in DataLoader(rows, batch_size=workload.batch_size, shuffle=True):
                optimizer.zero_grad()
                loss(workload, local(inputs), labels).backward()
                optimizer.step()
            states.append(local.state_dict())
        # All clients have equally many rows.
        module.load_state_dict(
            {name: sum(state[name] for state in states) / len(states) for name in module.state_dict()}
        )
        clock.tick()
    weights = {name: tensor.cpu() for name, tensor in module.state_dict().items()}
    clock.report(
        mean_loss(workload, run.data),
        mean_loss(workload, run.data, weights),
        processes=1,
        threads=torch.get_num_threads(),
        device=run.device,
    )


if __name__ == "__main__":
    main(asked())
