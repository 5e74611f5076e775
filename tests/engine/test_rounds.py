"""A round: who is asked, what becomes of failures, and when there are too few answers."""

import math
import threading
from dataclasses import dataclass, field, replace

import numpy as np
import pytest

from fedpact.algorithms.fedavg import FedAvg
from fedpact.channel.channel import Channel
from fedpact.core.errors import ConfigError, DataError, ModelError, QuorumError
from fedpact.core.messages import Aggregate, Everyone, Named, Task, Update
from fedpact.engine.in_process import InProcess
from fedpact.engine.population import InMemory
from fedpact.engine.rounds import hold_round, hold_to_end
from fedpact.engine.work import Rules, Setting
from tests.federation import SEED, Quadratics, quadratic

MODEL = Quadratics([0.0])
ROWS = {"lyon": 1, "nice": 2, "paris": 5}


@dataclass(frozen=True, kw_only=True)
class Troubled(FedAvg):
    """FedAvg whose clients do something else to their update, each by its name."""

    trouble: dict = field(default_factory=dict, compare=False)

    def client(self, model, task, data, kept, seed):
        update, _ = super().client(model, task, data, kept, seed)
        trouble = self.trouble.get(data.id, lambda update: update)
        return trouble(update), {"control": model.initial(seed)} if data.id == "paris" else {}


def raises(error):
    def trouble(update):
        raise error

    return trouble


def federation():
    # With lr 1 and one step every client's change is its optimum: 1, 2 and 3.
    return InMemory([quadratic(id, 1.0, [i + 1.0], rows) for i, (id, rows) in enumerate(ROWS.items())])


def hold(trouble=None, population=None, rules=None, round=0, timeout_s=None, to=None, kept=None, **settings):
    algorithm = Troubled(lr=1.0, local_steps=1, batch_size=None, trouble=trouble or {}, **settings)
    task = algorithm.task(algorithm.init(MODEL, SEED))
    task = task if to is None else replace(task, to=to)
    return hold_round(InProcess(timeout_s), setting(algorithm, population, rules), task, kept or {}, round)


def setting(algorithm, population=None, rules=None, model=MODEL):
    channel = Channel((), algorithm)
    return Setting(algorithm, model, population or federation(), channel, rules or Rules(), SEED)


def mean(outcome):
    return float(outcome.aggregate.means["model"]["w"][0])


def test_the_mean_is_weighted_by_examples_or_uniform():
    # (1·1 + 2·2 + 5·3)/8 = 2.5, and (1 + 2 + 3)/3 = 2.
    assert mean(hold()) == 2.5
    assert mean(hold(weighting="uniform")) == pytest.approx(2, abs=1e-12)
    assert (hold().aggregate.weight, hold().aggregate.count, hold().aggregate.population) == (8, 3, 3)


def test_a_round_tells_who_was_asked_what_was_sent_and_what_is_kept():
    outcome = hold()
    assert outcome.asked == ["lyon", "nice", "paris"]
    assert outcome.failures == {}
    assert list(outcome.kept) == ["paris"]
    assert list(outcome.seconds) == ["lyon", "nice", "paris"]
    # The model is one float64; an update is one more, and two metrics.
    assert outcome.download_bytes == 3 * 8
    assert outcome.upload_bytes == {"lyon": 24, "nice": 24, "paris": 24}


def test_the_cohort_is_asked_and_the_population_is_told():
    outcome = hold(rules=Rules(cohort=2))
    assert len(outcome.asked) == outcome.aggregate.count == 2
    assert outcome.aggregate.population == 3


FAILURES = {
    "an error of another library": (raises(ValueError("bad shape")), "ValueError: bad shape"),
    "bad rows": (raises(DataError("row 3 has no label.")), "row 3 has no label."),
    "a NaN": (
        lambda u: replace(u, averaged={"model": nan_like(u.averaged["model"])}),
        r'client "nice": w[0] is nan; the update is refused. Lower the learning rate or look for such values in the '
        "client's rows.",
    ),
    "another version": (
        lambda u: replace(u, version=7),
        'client "nice" answered version 7 of the model; this round is at version 0.',
    ),
    "a model instead of a change": (
        lambda u: replace(u, kind="model"),
        'client "nice" sent a model where the others sent a delta; the two cannot be added.',
    ),
    "a weight that is none": (
        lambda u: replace(u, weight=math.nan),
        'client "nice" gave its update the weight nan; a weight is a finite number, 0 or more.',
    ),
    "more rows than it has": (
        lambda u: replace(u, weight=1000),
        'client "nice" gave its update the weight 1000; it has announced 2.',
    ),
}


def nan_like(vector):
    copy = vector.copy()
    copy.flats[0][0] = math.nan
    return copy


@pytest.mark.parametrize("case", FAILURES)
def test_a_client_that_fails_is_named_with_its_reason_and_left_out(case):
    trouble, reason = FAILURES[case]
    outcome = hold({"nice": trouble})
    assert outcome.failures == {"nice": reason}
    assert outcome.asked == ["lyon", "nice", "paris"]
    # (1·1 + 5·3)/6 of the other two.
    assert mean(outcome) == pytest.approx(16 / 6, abs=1e-12)
    assert outcome.upload_bytes.keys() == {"lyon", "paris"}
    assert outcome.seconds.keys() == set(ROWS)


class Counted(InMemory):
    """A population that tells all sizes at once, but for those of a client whose size nobody can tell."""

    def size(self, id):
        if id == "nice":
            raise OSError("the disk is gone")
        return super().size(id)

    def sizes(self, ids):
        return [self.size(id) for id in ids]


def test_a_client_whose_size_is_unknown_is_the_only_one_that_fails_where_all_are_asked_at_once():
    counted = Counted([quadratic(id, 1.0, [i + 1.0], rows) for i, (id, rows) in enumerate(ROWS.items())])
    outcome = hold(population=counted)
    assert outcome.failures == {"nice": "OSError: the disk is gone"}
    assert mean(outcome) == pytest.approx((1 * 1 + 5 * 3) / 6)


def test_a_client_that_hangs_is_left_out():
    release = threading.Event()

    def hang(update):
        release.wait(60)
        return update

    outcome = hold({"nice": hang}, timeout_s=0.5)
    assert outcome.failures == {"nice": "no answer within 0.5 s"}
    assert mean(outcome) == pytest.approx(16 / 6, abs=1e-12)
    release.set()


def test_a_client_that_fails_keeps_what_it_kept_before():
    assert hold({"paris": raises(ValueError())}).kept == {}


def test_too_few_answers_end_the_run_and_every_reason_is_named():
    trouble = {"lyon": raises(ValueError("bad shape")), "paris": raises(DataError("no label."))}
    with pytest.raises(QuorumError) as error:
        hold(trouble, rules=Rules(quorum=2), round=6)
    assert str(error.value) == (
        "round 7: 1 of 3 clients answered, 2 are needed. lyon: ValueError: bad shape; paris: no label."
    )
    assert isinstance(error.value.__cause__, ValueError)


@pytest.mark.parametrize(
    ("quorum", "enough"), [(1, True), (2, True), (3, False), (0.6, True), (0.67, False), (1.0, False)]
)
def test_the_quorum_is_a_number_or_a_share_of_those_asked(quorum, enough):
    trouble = {"lyon": raises(ValueError("bad shape"))}
    if enough:
        assert hold(trouble, rules=Rules(quorum=quorum)).aggregate.count == 2
    else:
        with pytest.raises(QuorumError):
            hold(trouble, rules=Rules(quorum=quorum))


def test_a_share_of_a_quorum_is_of_the_cohort_and_not_of_all_clients():
    assert hold(rules=Rules(cohort=1, quorum=1.0)).aggregate.count == 1


def test_a_round_without_any_answer_is_none():
    with pytest.raises(QuorumError, match="0 of 3 clients answered, 1 are needed"):
        hold(dict.fromkeys(ROWS, raises(ValueError("bad shape"))))


def test_a_round_when_everybody_has_left_is_none():
    population = federation()
    for id in ROWS:
        population.leave(id)
    with pytest.raises(QuorumError, match="0 of 0 clients answered"):
        hold(population=population)


def test_a_mistake_in_the_job_ends_the_run():
    with pytest.raises(ModelError, match="no gradients"):
        hold({"nice": raises(ModelError("the model gives no gradients."))})
    with pytest.raises(ConfigError, match="the declared range is"):
        hold(rules=Rules(update_range=0.0))


def test_errors_that_a_caller_calls_fatal_end_the_run():
    with pytest.raises(DataError, match="a label"):
        hold({"nice": raises(DataError("a label"))}, rules=Rules(fatal=(DataError,)))


def test_values_beyond_the_declared_range_are_failures():
    outcome = hold(rules=Rules(update_range=2.5))
    assert outcome.failures.keys() == {"paris"}
    assert "outside the declared range of ±2.5" in outcome.failures["paris"]


def test_clients_join_and_leave_between_rounds():
    population = federation()
    assert hold(population=population).asked == ["lyon", "nice", "paris"]
    population.leave("nice")
    population.join(quadratic("berlin", 1.0, [11.0], rows=2))
    outcome = hold(population=population, round=1)
    assert outcome.asked == ["berlin", "lyon", "paris"]
    # (2·11 + 1·1 + 5·3)/8.
    assert mean(outcome) == 38 / 8


def test_only_those_named_are_asked():
    outcome = hold(to=Named(("paris", "lyon")))
    assert outcome.asked == ["paris", "lyon"]
    assert hold(rules=Rules(cohort=1), to=Everyone()).asked == ["lyon", "nice", "paris"]


def test_what_was_kept_is_given_back_to_its_client():
    given = {}

    @dataclass(frozen=True, kw_only=True)
    class Keeping(FedAvg):
        def client(self, model, task, data, kept, seed):
            given[data.id] = kept
            return super().client(model, task, data, kept, seed)

    algorithm = Keeping(lr=1.0)
    kept = {"nice": {"control": MODEL.initial(SEED)}}
    state = algorithm.init(MODEL, SEED)
    hold_round(InProcess(), setting(algorithm), algorithm.task(state), kept, 0)
    assert given == {"lyon": {}, "nice": kept["nice"], "paris": {}}


def test_rounds_draw_from_different_streams_and_the_same_round_from_one():
    # Batches of 1 of 5 different rows: the change tells which rows were drawn.
    x = np.arange(1.0, 33.0)[:, None]
    rows = replace(quadratic("lyon", 1.0, [0.0], 32).train, x=x)
    population = InMemory([replace(quadratic("lyon", 1.0, [0.0]), train=rows)])

    def change(round):
        algorithm = FedAvg(lr=0.5, local_steps=3, batch_size=1)
        task = algorithm.task(algorithm.init(MODEL, SEED))
        return mean(hold_round(InProcess(), setting(algorithm, population), task, {}, round))

    assert change(0) == change(0)
    assert len({change(round) for round in range(4)}) == 4


@dataclass(frozen=True)
class CountRows:
    """An algorithm of two tasks, each to count the rows of all clients."""

    releases = "summed"

    def init(self, model, seed):
        return ()

    def task(self, state):
        return Task("count", to=Everyone()) if len(state) < 2 else None

    def client(self, model, task, data, kept, seed):
        return Update(data.id, 0, "statistics", summed={"rows": np.array(len(data.train))}), kept

    def server(self, model, state, aggregate: Aggregate):
        return (*state, int(aggregate.sum("rows")))


def test_an_algorithm_that_says_when_it_is_done_is_run_to_its_end():
    assert hold_to_end(InProcess(), setting(CountRows(), rules=Rules(cohort=1), model=None)) == (8, 8)
