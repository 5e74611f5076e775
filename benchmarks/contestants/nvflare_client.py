"""The script that NVIDIA FLARE runs at each of its sites."""

import sys

import nvflare.client as flare
import torch

from benchmarks.contestants.common import asked
from benchmarks.contestants.nvflare_model import Network
from benchmarks.torch_models import loss, tensors


def main() -> None:
    torch.set_num_threads(1)
    run = asked(sys.argv[1:])
    workload = run.workload
    module = Network(sys.argv[1:]).train()
    x, y = tensors(workload, run.data)
    flare.init()
    site = int(flare.get_site_name().split("-")[-1])
    while flare.is_running():
        received = flare.receive()
        if received is None:
            break
        # There is no population behind the sites: each takes another client's rows every round.
        number = (site * 7919 + (received.current_round or 0) * 104729) % workload.clients
        module.load_state_dict({name: torch.as_tensor(value) for name, value in received.params.items()})
        optimizer = torch.optim.SGD(module.parameters(), lr=workload.lr)
        for rows in torch.randperm(workload.rows).split(workload.batch_size):
            optimizer.zero_grad()
            loss(workload, module(x[number][rows]), y[number][rows]).backward()
            optimizer.step()
        flare.send(flare.FLModel(params=module.state_dict(), meta={"NUM_STEPS_CURRENT_ROUND": workload.rows}))


if __name__ == "__main__":
    main()
