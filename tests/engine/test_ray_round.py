"""What a round on a cluster takes in, without a cluster."""

from dataclasses import replace
from typing import Any

from fedpact.algorithms.fedavg import FedAvg
from fedpact.core.errors import DataError
from fedpact.core.messages import Update
from fedpact.core.vector import Vector
from fedpact.engine.in_process import InProcess
from fedpact.engine.placement import Placement
from fedpact.engine.ray_round import Round
from fedpact.engine.travel import Answers, Layouts
from fedpact.engine.work import Intake
from tests.engine.ray_rounds import Federation


def test_a_partial_sum_that_does_not_fit_takes_no_failure_along() -> None:
    work = Federation(InProcess(), FedAvg()).work()
    change = Vector.zeros(work.task.arrays["model"].layout.wide)
    update = Update("a", work.task.version, "delta", averaged={"model": change})
    first, second = Intake(work), Intake(work)
    first.take(update, {}, 1.0)
    second.take(
        replace(update, client="b", averaged={"model": change, "more": change}), {"control": change}, 2.0
    )
    second.fail("c", DataError("no rows"), 3.0)
    crew: Any = None
    held = Round(crew, Placement(), {}, work, Layouts())
    for intake in (first, second):
        held._take(Answers.of(intake, "one by one"))
    assert not held.agreed
    assert held.gathered.sums.clients == {"a"}
    assert list(held.gathered.failures) == ["c", "b"]
    assert held.gathered.failures["c"] == "no rows"
    assert held.gathered.seconds == {"a": 1.0, "b": 2.0, "c": 3.0}
    assert list(held.gathered.upload_bytes) == ["a"]
    assert not held.gathered.kept
