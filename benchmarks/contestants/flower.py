"""Flower: its simulation engine (Ray) with the Message API and the FedAvg strategy, one core per client."""

import os
import shlex
from collections.abc import Iterable
from typing import Any

from flwr.app import ArrayRecord, Context, Message
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg
from flwr.simulation import run_simulation

from benchmarks.contestants import flower_app
from benchmarks.contestants.common import Clock, Run, asked
from benchmarks.torch_models import mean_loss, model

_ANSWER_WITHIN_S = 600


class TimedFedAvg(FedAvg):
    """FedAvg that tells the clock where rounds end, and ends where a client fails."""

    def __init__(self, clock: Clock, **settings: Any) -> None:
        super().__init__(**settings)
        self._clock = clock

    def aggregate_train(self, server_round: int, replies: Iterable[Message]) -> Any:
        """Aggregate as FedAvg does."""
        answers = list(replies)
        failed = next((answer for answer in answers if answer.has_error()), None)
        if failed is not None:
            raise RuntimeError(f"a client of Flower's failed: {failed.error}")
        aggregated = super().aggregate_train(server_round, answers)
        self._clock.tick()
        return aggregated


def main(run: Run) -> None:
    workload, clock, server = run.workload, Clock(), ServerApp()
    trained: dict[str, Any] = {}
    os.environ[flower_app.COMMAND_LINE] = shlex.join(run.arguments())

    @server.main()
    def serve(grid: Grid, context: Context) -> None:
        strategy = TimedFedAvg(
            clock,
            fraction_train=workload.cohort / workload.clients,
            fraction_evaluate=0.0,
            min_train_nodes=workload.cohort,
            min_available_nodes=workload.clients,
        )
        clock.tick()
        result = strategy.start(
            grid=grid,
            initial_arrays=ArrayRecord(model(workload, run.data).state_dict()),
            num_rounds=run.rounds,
            timeout=_ANSWER_WITHIN_S,
        )
        trained.update(result.arrays.to_torch_state_dict())

    run_simulation(
        server,
        flower_app.client,
        num_supernodes=workload.clients,
        backend_config={
            "client_resources": {"num_cpus": 1.0, "num_gpus": 0.0},
            # A cluster of its own, whoever else runs Ray on this machine.
            "init_args": {"num_cpus": run.workers, "address": "local"},
        },
    )
    clock.report(
        mean_loss(workload, run.data), mean_loss(workload, run.data, trained), actors=run.workers, threads=1
    )


if __name__ == "__main__":
    main(asked())
