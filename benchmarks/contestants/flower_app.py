"""Flower's client app, in a module of its own: Ray's actors import it and keep model and data between messages."""

import os
import shlex
from functools import cache
from typing import Any

import torch
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from torch import Tensor, nn

from benchmarks.contestants.common import Run, asked
from benchmarks.torch_models import loss, model, tensors

# An actor knows the command line of this contestant from here alone.
COMMAND_LINE = "FEDPACT_BENCHMARK"

client = ClientApp()


@cache
def _held() -> tuple[Run, nn.Module, Tensor, Tensor]:
    torch.set_num_threads(1)
    run = asked(shlex.split(os.environ[COMMAND_LINE]))
    return run, model(run.workload, run.data).train(), *tensors(run.workload, run.data)


@client.train()
def train(message: Message, context: Context) -> Message:
    """Train one client for an epoch."""
    run, module, x, y = _held()
    workload, number = run.workload, int(context.node_config["partition-id"])
    module.load_state_dict(_arrays(message).to_torch_state_dict())
    optimizer = torch.optim.SGD(module.parameters(), lr=workload.lr)
    for rows in torch.randperm(workload.rows).split(workload.batch_size):
        optimizer.zero_grad()
        loss(workload, module(x[number][rows]), y[number][rows]).backward()
        optimizer.step()
    content = {
        "arrays": ArrayRecord(module.state_dict()),
        "metrics": MetricRecord({"num-examples": workload.rows}),
    }
    return Message(RecordDict(content), reply_to=message)


def _arrays(message: Message) -> Any:
    return message.content["arrays"]
