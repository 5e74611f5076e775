"""FedAvg: clients train locally, the server takes the mean of what they learned.

McMahan et al., "Communication-Efficient Learning of Deep Networks from Decentralized Data", AISTATS 2017,
Algorithm 1; with a server optimiser it is Reddi et al., "Adaptive Federated Optimization", ICLR 2021,
Algorithm 1 (FedOpt).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import numpy as np

from fedpact.algorithms import PARTS
from fedpact.algorithms.local_sgd import LocalSGD, Trained
from fedpact.algorithms.optimizers import SGD, Optimizer
from fedpact.algorithms.server import first_slots, server_step
from fedpact.algorithms.stacked import TrainedStack, ids_of, train_stacked
from fedpact.core.algorithm import ClientState
from fedpact.core.messages import Aggregate, Cohort, Recipients, Task, Update, Updates
from fedpact.core.rows import ClientData
from fedpact.core.seeds import Seed
from fedpact.core.settings import check_numbers, check_part
from fedpact.core.stack import Stack
from fedpact.core.vector import Vector


@dataclass(frozen=True)
class FedAvgState:
    """The server's state.

    Args:
        round: the number of rounds done.
        model: the global model.
        slots: the server optimiser's state, in the layout `model.layout.wide`.
    """

    round: int
    model: Vector
    slots: dict[str, Vector]


@dataclass(frozen=True, kw_only=True)
class FedAvg(LocalSGD):
    """Federated averaging: the cohort trains from the global model, the server adds the mean of the changes to it.

    The settings of local training are those of `LocalSGD`.

    Args:
        server_lr: the server's learning rate; 1 takes the mean as it is.
        server_optimizer: how the server steps along the mean change, as the negative of a gradient.
    """

    server_lr: float = 1.0
    server_optimizer: Optimizer = field(default_factory=SGD)

    releases: ClassVar[Literal["averaged", "summed"]] = "averaged"
    recipients: ClassVar[Recipients] = Cohort()

    def __post_init__(self) -> None:
        super().__post_init__()
        check_numbers(self, "server_lr", positive=True)
        check_part(self, "server_optimizer", Optimizer, PARTS)

    @property
    def adds_means(self) -> bool:
        """Whether the server adds the mean change as it is, so that it tells what the next model will be."""
        return self.server_lr == 1 and self.server_optimizer == SGD()

    def init(self, model: Any, seed: Seed) -> FedAvgState:
        """Return the state before the first round."""
        start = model.initial(seed)
        return FedAvgState(0, start, first_slots(self.server_optimizer, start))

    def task(self, state: FedAvgState) -> Task:
        """Ask the cohort to train from the global model."""
        return Task(
            verb="train",
            version=state.round,
            arrays={"model": state.model},
            kind="delta",
            to=self.recipients,
            weighting=self.weighting,
        )

    def client(
        self, model: Any, task: Task, data: ClientData, kept: ClientState, seed: Seed
    ) -> tuple[Update, ClientState]:
        """Train on the client's rows and return the change of the model."""
        trained = self.local_training(model, task.arrays["model"], data.train, task.version, seed)
        return self.update(task, data, trained), kept

    def clients(
        self,
        model: Any,
        task: Task,
        data: Sequence[ClientData],
        kept: Sequence[ClientState],
        seeds: Sequence[Seed],
    ) -> tuple[Updates, Sequence[ClientState]]:
        """Train many clients side by side and return the changes of their models."""
        trained = train_stacked(self, model, task.arrays["model"], data, task.version, seeds)
        return self.updates(task, data, trained), [kept[i] for i in trained.order.tolist()]

    def server(self, model: Any, state: FedAvgState, aggregate: Aggregate) -> FedAvgState:
        """Step along the mean change."""
        change, count = aggregate.means["model"], state.round + 1
        if self.adds_means:
            # The same bits as of the step below, in one pass over the model.
            return FedAvgState(count, state.model.plus(change), {})
        gradient = Vector.zeros(change.layout)
        for negative, flat in zip(gradient.flats, change.flats, strict=True):
            np.negative(flat, out=negative)
        stepped, slots = server_step(
            self.server_optimizer, state.model, gradient, state.slots, count, self.server_lr
        )
        return FedAvgState(count, stepped, slots)

    def update(
        self, task: Task, data: ClientData, trained: Trained, more: Mapping[str, Vector] | None = None
    ) -> Update:
        """Return what a client that trained answers, with more vectors to be averaged alike."""
        return Update(
            client=data.id,
            version=task.version,
            kind="delta",
            weight=len(data.train) if self.weighting == "examples" else 1,
            averaged={"model": trained.change, **(more or {})},
            metrics=trained.metrics,
        )

    def updates(
        self,
        task: Task,
        data: Sequence[ClientData],
        trained: TrainedStack,
        more: Mapping[str, Stack] | None = None,
    ) -> Updates:
        """Return what clients that trained side by side answer, with more vectors in the order of `trained`."""
        ids = ids_of(data)
        return Updates(
            clients=[ids[i] for i in trained.order.tolist()],
            version=task.version,
            kind="delta",
            weights=trained.rows.tolist() if self.weighting == "examples" else [1] * len(ids),
            averaged={"model": trained.changes, **(more or {})},
            metrics=trained.metrics,
        )
