"""SCAFFOLD: control variates that take the drift between clients out of every local step.

Karimireddy et al., "SCAFFOLD: Stochastic Controlled Averaging for Federated Learning", ICML 2020,
Algorithm 1 and equations (3) and (4).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import numpy as np

from fedpact.algorithms.fedavg import FedAvg, FedAvgState
from fedpact.algorithms.local_sgd import gradient_of
from fedpact.algorithms.optimizers import SGD
from fedpact.algorithms.stacked import gradients_stacked, rows_of, train_stacked
from fedpact.core.algorithm import ClientState
from fedpact.core.errors import ConfigError, ModelError
from fedpact.core.messages import Aggregate, Task, Update, Updates
from fedpact.core.model import Array, GradientModel
from fedpact.core.rows import ClientData
from fedpact.core.seeds import Seed
from fedpact.core.settings import check_choice, check_numbers
from fedpact.core.stack import Stack
from fedpact.core.vector import Vector


@dataclass(frozen=True)
class ScaffoldState(FedAvgState):
    """FedAvg's state, the server's control variate, and what it is divided by.

    Args:
        control: the server's control variate c, in the layout `model.layout.wide`.
        total: the weight of all clients, as far as it is known.
        weight: the weights of all updates so far, added up.
        count: the number of updates so far.
    """

    control: Vector
    total: float = 0.0
    weight: float = 0.0
    count: int = 0


@dataclass(frozen=True, kw_only=True)
class SCAFFOLD(FedAvg):
    """FedAvg whose local gradients are corrected by c − c_i; every client keeps its c_i between rounds.

    With weights, c is Σ w_i c_i / Σ w_i, the correction for the weighted objective. Clients that were not
    sampled yet have c_i = 0.

    Args:
        option: how a client renews its c_i: 1, the gradient of all its rows at the model received; or 2,
            c_i − c + (x − y_i)/(K·lr), which costs no further pass.

    Raises:
        ConfigError: the local optimiser is not plain SGD, for which the correction is derived; or dp is given with
            option 1, whose gradient of all rows nothing would hide a record in.
    """

    option: Literal[1, 2] = 2

    keeps_updates: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice(self, "option", (1, 2))
        check_numbers(self, "lr", positive=True)
        if self.optimizer != SGD():
            raise ConfigError(
                "SCAFFOLD corrects plain SGD steps: leave optimizer at SGD() without momentum or weight decay."
            )
        if self.dp is not None and self.option == 1:
            raise ConfigError(
                "SCAFFOLD: with option=1 a client also sends the gradient of all its rows, in which dp hides no "
                "record; leave option at 2."
            )

    def init(self, model: Any, seed: Seed) -> ScaffoldState:
        """Return the state before the first round."""
        state = super().init(model, seed)
        return ScaffoldState(0, state.model, state.slots, Vector.zeros(state.model.layout.wide))

    def task(self, state: FedAvgState) -> Task:
        """Ask the cohort to train from the global model with the server's control variate."""
        if not isinstance(state, ScaffoldState):
            raise ModelError("SCAFFOLD needs a state of its own; start it anew.")
        return replace(super().task(state), arrays={"model": state.model, "control": state.control})

    def correct(self, gradient: Array, weights: Array, anchors: Mapping[str, Array]) -> None:
        """Add c − c_i."""
        gradient += anchors["drift"]

    def client(
        self, model: Any, task: Task, data: ClientData, kept: ClientState, seed: Seed
    ) -> tuple[Update, ClientState]:
        """Train with corrected gradients, renew c_i, and return the changes of the model and of c_i."""
        start, server_control = task.arrays["model"], task.arrays["control"]
        own = kept.get("control") or Vector.zeros(start.layout.wide)
        drift = server_control.minus(own)
        trained = self.local_training(model, start, data.train, task.version, seed, {"drift": drift})
        rate = self.local_rate(task.version)
        if self.option == 1:
            renewed = _gradient_at(model, start, data, seed)
        elif rate > 0:
            renewed = Vector.zeros(start.layout.wide)
            for i, segment in enumerate(start.layout.segments):
                if segment.role == "parameter":
                    renewed.flats[i][:] = trained.change.flats[i] / -(trained.steps * rate) - drift.flats[i]
        else:
            # A schedule has come to 0: a client that does not move learns nothing of its gradient.
            renewed = own
        update = self.update(task, data, trained, {"control": renewed.minus(own)})
        return update, {"control": renewed}

    def clients(
        self,
        model: Any,
        task: Task,
        data: Sequence[ClientData],
        kept: Sequence[ClientState],
        seeds: Sequence[Seed],
    ) -> tuple[Updates, Sequence[ClientState]]:
        """Do the same for many clients side by side."""
        start, rate = task.arrays["model"], self.local_rate(task.version)
        wide, nothing = start.layout.wide, Vector.zeros(start.layout.wide)
        own = Stack.of([state.get("control") or nothing for state in kept], wide)
        gap = own.minus(task.arrays["control"])
        drift = Stack(wide, [-flat for flat in gap.flats])
        trained = train_stacked(self, model, start, data, task.version, seeds, {"drift": drift})
        own, gap = (stack.take(trained.order).beside(trained.changes) for stack in (own, gap))
        if self.option == 1:
            rows = rows_of(data)
            every = np.broadcast_to(np.arange(rows.max()), (len(rows), rows.max()))
            control_seeds = Seed.child_of_each(seeds, "control")
            gradients, _ = gradients_stacked(model, start, data, every, rows, control_seeds)
            renewed = gradients.take(trained.order)
        elif rate > 0:
            renewed = trained.changes.times(-1 / (trained.steps * rate)).plus(gap)
        else:
            renewed = own
        updates = self.updates(task, data, trained, {"control": renewed.minus(own)})
        return updates, [{"control": vector} for vector in renewed.rows()]

    def server(self, model: Any, state: FedAvgState, aggregate: Aggregate) -> ScaffoldState:
        """Step along the mean change; move c by the sampled share, by weight, of the mean change of the c_i."""
        if not isinstance(state, ScaffoldState):
            raise ModelError("SCAFFOLD needs a state of its own; start it anew.")
        after = super().server(model, state, aggregate)
        weight, count = state.weight + aggregate.weight, state.count + aggregate.count
        # Clients not sampled yet are taken to weigh as much as the others do on average.
        total = aggregate.population * weight / count
        control = state.control.copy()
        for flat, change in zip(control.flats, aggregate.means["control"].flats, strict=True):
            # c·total is Σ w_i c_i exactly, whatever the total is taken to be, and so 0 at the optimum.
            flat *= state.total / total
            flat += (aggregate.weight / total) * change
        return ScaffoldState(after.round, after.model, after.slots, control, total, weight, count)


def _gradient_at(model: GradientModel, start: Vector, data: ClientData, seed: Seed) -> Vector:
    session = model.session()
    session.load(start)
    session.bind(data.train, seed.child("control"))
    session.gradient(None)
    return gradient_of(session, start.layout)
