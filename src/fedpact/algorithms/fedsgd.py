"""FedSGD: clients upload gradients; the server is the parameter server and takes the step.

McMahan et al., "Communication-Efficient Learning of Deep Networks from Decentralized Data", AISTATS 2017,
section 2.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from fedpact.algorithms import PARTS
from fedpact.algorithms.fedavg import FedAvgState
from fedpact.algorithms.local_sgd import Weighting, check_rows, gradient_of
from fedpact.algorithms.optimizers import SGD, Optimizer
from fedpact.algorithms.schedules import Constant, Schedule
from fedpact.algorithms.server import first_slots, server_step
from fedpact.algorithms.stacked import gradients_stacked, ids_of, rows_of
from fedpact.core.algorithm import ClientState
from fedpact.core.errors import ModelError
from fedpact.core.messages import Aggregate, Task, Update, Updates
from fedpact.core.model import gives_gradients
from fedpact.core.rows import ClientData
from fedpact.core.seeds import Seed, shuffled
from fedpact.core.settings import check_choice, check_counts, check_numbers, check_part


@dataclass(frozen=True, kw_only=True)
class FedSGD:
    """One gradient a client and round; with all clients and full batches it is gradient descent on all rows.

    Args:
        lr: the server's learning rate.
        batch_size: rows a client draws for its gradient; None for all of them.
        server_optimizer: how the server steps along the mean gradient.
        lr_schedule: multiplies lr, by round.
        weighting: weigh gradients by the client's "examples", or all the same ("uniform").

    Raises:
        ConfigError: a setting is out of range.
    """

    lr: float = 0.1
    batch_size: int | None = None
    server_optimizer: Optimizer = field(default_factory=SGD)
    lr_schedule: Schedule = field(default_factory=Constant)
    weighting: Weighting = "examples"

    releases: ClassVar[Literal["averaged", "summed"]] = "averaged"

    def __post_init__(self) -> None:
        check_numbers(self, "lr", positive=True)
        check_counts(self, "batch_size", optional=True)
        check_part(self, "server_optimizer", Optimizer, PARTS)
        check_part(self, "lr_schedule", Schedule, PARTS)
        check_choice(self, "weighting", get_args(Weighting))

    def init(self, model: Any, seed: Seed) -> FedAvgState:
        """Return the state before the first round."""
        start = model.initial(seed)
        return FedAvgState(0, start, first_slots(self.server_optimizer, start))

    def task(self, state: FedAvgState) -> Task:
        """Ask the cohort for gradients at the global model."""
        return Task(
            "gradient",
            version=state.round,
            arrays={"model": state.model},
            kind="gradient",
            weighting=self.weighting,
        )

    def client(
        self, model: Any, task: Task, data: ClientData, kept: ClientState, seed: Seed
    ) -> tuple[Update, ClientState]:
        """Return the gradient of the mean loss over the client's rows, or over a batch of them.

        Raises:
            ModelError: the model gives no gradients.
            DataError: the client has no training rows.
        """
        if not gives_gradients(model):
            raise ModelError(
                f"FedSGD needs gradients, which {type(model).__name__} does not give; use FedAvg."
            )
        check_rows(data.train)
        start, n = task.arrays["model"], len(data.train)
        index = self._batch(n, seed)
        session = model.session()
        session.load(start)
        session.bind(data.train, seed.child("model"))
        loss = session.gradient(index)
        gradient = gradient_of(session, start.layout)
        buffers = [i for i, segment in enumerate(start.layout.segments) if segment.role == "buffer"]
        if buffers:
            # They have no gradient: their change is sent as its negative, for the server to step alike.
            change = session.change(start)
            for i in buffers:
                np.negative(change.flats[i], out=gradient.flats[i])
        rows = n if index is None else len(index)
        update = Update(
            client=data.id,
            version=task.version,
            kind="gradient",
            # Of all its rows: a batch stands for them, so that the mean is that of the pooled gradient.
            weight=n if self.weighting == "examples" else 1,
            averaged={"model": gradient},
            metrics={"loss": float(loss) * rows, "rows": rows},
        )
        return update, kept

    def clients(
        self,
        model: Any,
        task: Task,
        data: Sequence[ClientData],
        kept: Sequence[ClientState],
        seeds: Sequence[Seed],
    ) -> tuple[Updates, Sequence[ClientState]]:
        """Return the gradients of many clients, computed side by side.

        Raises:
            DataError: a client has no training rows.
        """
        rows = rows_of(data)
        index, taken = self._batches(rows, seeds)
        gradients, losses = gradients_stacked(
            model, task.arrays["model"], data, index, taken, Seed.child_of_each(seeds, "model")
        )
        updates = Updates(
            clients=ids_of(data),
            version=task.version,
            kind="gradient",
            weights=rows.tolist() if self.weighting == "examples" else [1] * len(data),
            averaged={"model": gradients},
            metrics={"loss": losses * taken, "rows": taken.astype(np.float64)},
        )
        return updates, kept

    def _batch(self, n: int, seed: Seed) -> NDArray[np.int64] | None:
        if self.batch_size is None or self.batch_size >= n:
            return None
        return np.sort(shuffled([seed.child("batch")], 0, n)[0, : self.batch_size])

    def _batches(
        self, rows: NDArray[np.int64], seeds: Sequence[Seed]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the same for many clients [clients, b], and how many rows each takes [clients]."""
        every = np.broadcast_to(np.arange(rows.max()), (len(rows), rows.max()))
        if self.batch_size is None or self.batch_size >= rows.max():
            return every, rows
        drawn = shuffled(Seed.child_of_each(seeds, "batch"), 0, rows)[:, : self.batch_size]
        drawn = np.where(rows[:, None] > self.batch_size, np.sort(drawn, axis=1), every[:, : self.batch_size])
        return drawn, np.minimum(rows, self.batch_size)

    def server(self, model: Any, state: FedAvgState, aggregate: Aggregate) -> FedAvgState:
        """Step along the mean gradient."""
        gradient, count = aggregate.means["model"].copy(), state.round + 1
        lr = float(self.lr * self.lr_schedule.factor(state.round))
        stepped, slots = server_step(self.server_optimizer, state.model, gradient, state.slots, count, lr)
        return FedAvgState(count, stepped, slots)
