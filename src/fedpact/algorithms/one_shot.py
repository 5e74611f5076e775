"""One-shot fitting: a model that is solved from sums over rows, exactly, in one round."""

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from fedpact.core.algorithm import ClientState
from fedpact.core.errors import ModelError
from fedpact.core.messages import Aggregate, Everyone, Task, Update
from fedpact.core.model import StatisticsModel
from fedpact.core.rows import ClientData
from fedpact.core.seeds import Seed
from fedpact.core.vector import Vector


@dataclass(frozen=True)
class OneShotState:
    """The server's state: the number of rounds done, and the model."""

    round: int
    model: Vector


@dataclass(frozen=True)
class OneShot:
    """Every client sends its sums once, and the model is solved from their total (GaussianNB, MultinomialNB)."""

    releases: ClassVar[Literal["averaged", "summed"]] = "summed"

    def init(self, model: Any, seed: Seed) -> OneShotState:
        """Return the state before the round.

        Raises:
            ModelError: the model cannot be solved from sums.
        """
        if not isinstance(model, StatisticsModel):
            raise ModelError(
                f"OneShot needs a model that is solved from sums (GaussianNB, MultinomialNB); "
                f"{type(model).__name__} is not. Use FedAvg or Newton."
            )
        return OneShotState(0, model.initial(seed))

    def task(self, state: OneShotState) -> Task | None:
        """Ask every client for its sums, once."""
        return Task("statistics", kind="statistics", to=Everyone()) if state.round == 0 else None

    def client(
        self, model: Any, task: Task, data: ClientData, kept: ClientState, seed: Seed
    ) -> tuple[Update, ClientState]:
        """Return the sums over the client's rows."""
        summed = model.statistics(data.train)
        return Update(data.id, task.version, "statistics", summed=summed), kept

    def server(self, model: Any, state: OneShotState, aggregate: Aggregate) -> OneShotState:
        """Solve the model from the sums."""
        return OneShotState(1, model.solve(aggregate.sums))
