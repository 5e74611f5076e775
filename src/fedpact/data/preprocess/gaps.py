"""How many values of each column are missing, beside what another estimate finds."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from fedpact.core.algorithm import ClientState
from fedpact.core.messages import Aggregate, Task, Update
from fedpact.core.rows import ClientData
from fedpact.core.seeds import Seed
from fedpact.data.preprocess.columns import as_frame, column
from fedpact.data.preprocess.estimate import Columnwise, Estimate, Estimating, ask, reply
from fedpact.data.wording import at_client


@dataclass(frozen=True)
class WithMissing(Columnwise):
    """The number of training rows without a value of each column, in one round; then another estimate.

    Args:
        names: columns.
        estimate: the other estimate.
    """

    estimate: Estimate

    @property
    def told(self) -> tuple[str, ...]:
        """What the other estimate tells."""
        return getattr(self.estimate, "told", ()) if self.names else ()

    @property
    def named(self) -> tuple[str, ...]:
        """Those of the other estimate."""
        return getattr(self.estimate, "named", ()) if self.names else ()

    def init(self, model: Any, seed: Seed) -> Estimating:
        """Return the state before the first round."""
        return Estimating(0, {"missing": None, "other": self.estimate.init(model, seed)})

    def task(self, state: Estimating) -> Task | None:
        """Ask for the numbers, then what the other estimate asks."""
        if not self.names:
            return None
        if state.found["missing"] is None:
            return ask(state, missing=True)
        task = self.estimate.task(state.found["other"])
        return task and replace(task, version=state.round)

    def client(
        self, model: Any, task: Task, data: ClientData, kept: ClientState, seed: Seed
    ) -> tuple[Update, ClientState]:
        """Return the number of missing values of each column, or what the other estimate needs."""
        if "missing" not in task.parameters:
            return self.estimate.client(model, task, data, kept, seed)
        with at_client(data.id):
            frame = as_frame(data.train.x)
            missing = [int(column(frame, name).isna().sum()) for name in self.names]
        return reply(task, data, {"missing": np.array(missing, np.int64)}), kept

    def server(self, model: Any, state: Estimating, aggregate: Aggregate) -> Estimating:
        """Keep the numbers, or let the other estimate go on."""
        if state.found["missing"] is None:
            found = {**state.found, "missing": aggregate.sum("missing").tolist()}
        else:
            other = self.estimate.server(model, state.found["other"], aggregate)
            found = {**state.found, "other": other}
        return Estimating(state.round + 1, found)

    def fitted(self, state: Estimating) -> Mapping[str, Any]:
        """Return "missing" → column → rows without a value, and "found" → what the other estimate found."""
        missing = dict(zip(self.names, state.found["missing"] or (), strict=True))
        return {"missing": missing, "found": self.estimate.fitted(state.found["other"])}
