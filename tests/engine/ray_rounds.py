"""Rounds of one algorithm over six clients, held by any engine."""

from typing import Any

from fedpact.channel.channel import Channel
from fedpact.core.model import Schema
from fedpact.engine.population import InMemory, Population
from fedpact.engine.rounds import Outcome, hold_round
from fedpact.engine.work import Engine, Rules, Setting, Work
from fedpact.learn.linear import Logistic
from tests.engine.runs import two_classes
from tests.federation import SEED

MODEL = Logistic().build(Schema("binary", (3,), (0, 1)))
CLIENTS = two_classes(6)
IDS = [client.id for client in CLIENTS]
RULES = Rules()


class Federation:
    """Rounds of one algorithm, held one by one."""

    def __init__(
        self, engine: Engine, algorithm: Any, population: Population | None = None, rules: Rules = RULES
    ) -> None:
        self.engine, self.algorithm = engine, algorithm
        self.population = population or InMemory(CLIENTS)
        self.setting = Setting(algorithm, MODEL, self.population, Channel((), algorithm), rules, SEED)
        self.state = algorithm.init(MODEL, SEED)
        self.kept: dict[str, Any] = {}
        self.round = 0

    def hold(self) -> Outcome:
        task = self.algorithm.task(self.state)
        outcome = hold_round(self.engine, self.setting, task, self.kept, self.round)
        self.kept.update(outcome.kept)
        self.state = self.algorithm.server(MODEL, self.state, outcome.aggregate)
        self.round += 1
        return outcome

    def work(self) -> Work:
        """Return what all clients are asked in the first round."""
        task = self.algorithm.task(self.state)
        opened = self.setting.channel.begin(task, IDS, SEED)
        return Work(self.setting, task, {}, opened, SEED, dict.fromkeys(IDS, 100), len(IDS))


def run(
    engine: Engine,
    algorithm: Any,
    population: Population | None = None,
    rounds: int = 2,
    rules: Rules = RULES,
) -> Any:
    """Return all that rounds gave but how long they took."""
    federation = Federation(engine, algorithm, population, rules)
    outcomes = [federation.hold() for _ in range(rounds)]
    records = [
        (list(o.kept), list(o.seconds), list(o.upload_bytes.items()), list(o.failures.items()))
        for o in outcomes
    ]
    return federation.state, federation.kept, records, [outcome.aggregate.metrics for outcome in outcomes]
