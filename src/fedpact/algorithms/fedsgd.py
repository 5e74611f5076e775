"""FedSGD: clients upload gradients; the server is the parameter server and takes the step.

McMahan et al., "Communication-Efficient Learning of Deep Networks from Decentralized Data", AISTATS 2017,
section 2.
"""

from dataclasses import dataclass, field
from numbers import Integral
from typing import Any, ClassVar, Literal

import numpy as np

from fedpact.algorithms.fedavg import FedAvgState
from fedpact.algorithms.local_sgd import gradient_of
from fedpact.algorithms.optimizers import SGD, Optimizer
from fedpact.algorithms.schedules import Constant, Schedule
from fedpact.algorithms.server import first_slots, server_step
from fedpact.core.algorithm import ClientState
from fedpact.core.errors import ConfigError, ModelError
from fedpact.core.messages import Aggregate, Task, Update
from fedpact.core.model import GradientModel
from fedpact.core.rows import ClientData
from fedpact.core.seeds import Seed


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
    weighting: Literal["examples", "uniform"] = "examples"

    releases: ClassVar[Literal["averaged", "summed"]] = "averaged"

    def __post_init__(self) -> None:
        if not self.lr > 0:
            raise ConfigError(f"FedSGD: lr is {self.lr}; it must be greater than 0.")
        if self.batch_size is not None and not (
            isinstance(self.batch_size, Integral) and self.batch_size > 0
        ):
            raise ConfigError(
                f"FedSGD: batch_size is {self.batch_size}; it must be a whole number, 1 or more, or None."
            )
        if self.weighting not in ("examples", "uniform"):
            raise ConfigError(f'FedSGD: weighting is "{self.weighting}"; it must be "examples" or "uniform".')

    def init(self, model: Any, seed: Seed) -> FedAvgState:
        """Return the state before the first round."""
        start = model.initial(seed)
        return FedAvgState(0, start, first_slots(self.server_optimizer, start))

    def task(self, state: FedAvgState) -> Task:
        """Ask the cohort for gradients at the global model."""
        return Task("gradient", version=state.round, arrays={"model": state.model}, weighting=self.weighting)

    def client(
        self, model: Any, task: Task, data: ClientData, kept: ClientState, seed: Seed
    ) -> tuple[Update, ClientState]:
        """Return the gradient of the mean loss over the client's rows, or over a batch of them."""
        if not isinstance(model, GradientModel):
            raise ModelError(
                f"FedSGD needs gradients, which {type(model).__name__} does not give; use FedAvg."
            )
        start, n = task.arrays["model"], len(data.train)
        index = None
        if self.batch_size is not None and self.batch_size < n:
            random = seed.child("batch").generator()
            index = np.sort(random.choice(n, self.batch_size, replace=False))
        session = model.session()
        session.load(start)
        session.bind(data.train, seed.child("model"))
        loss = session.gradient(index)
        gradient = gradient_of(session, start.layout)
        # Buffers have no gradient: their change is sent as its negative, for the server to step alike.
        moved = start.minus(session.store())
        for i, segment in enumerate(start.layout.segments):
            if segment.role == "buffer":
                gradient.flats[i][:] = moved.flats[i]
        rows = n if index is None else len(index)
        update = Update(
            client=data.id,
            version=task.version,
            kind="gradient",
            # Of all its rows: a batch stands for them, so that the mean is that of the pooled gradient.
            weight=n if self.weighting == "examples" else 1,
            averaged={"model": gradient},
            metrics={"loss": loss * rows, "rows": rows},
        )
        return update, kept

    def server(self, model: Any, state: FedAvgState, aggregate: Aggregate) -> FedAvgState:
        """Step along the mean gradient."""
        change = aggregate.means["model"].copy()
        for flat in change.flats:
            flat *= -1.0
        lr = self.lr * self.lr_schedule.factor(state.round)
        count = state.round + 1
        stepped, slots = server_step(self.server_optimizer, state.model, change, state.slots, count, lr)
        return FedAvgState(count, stepped, slots)
