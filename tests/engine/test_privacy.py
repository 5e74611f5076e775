"""The privacy statement of a run: ε is that of what was released, and a budget is charged before every release."""

import math
from pathlib import Path
from typing import Any

import pytest

import fedpact as fp
from fedpact.channel.clip import Clip
from fedpact.channel.noise import GaussianNoise, LaplaceNoise, SkellamNoise
from fedpact.channel.secure_sum import SecureSum
from fedpact.core.errors import ConfigError, PrivacyError
from fedpact.engine.result import Result
from fedpact.engine.work import Rules
from fedpact.privacy.events import DiscreteGaussian, Everyone, FixedSize, Gaussian, Poisson
from fedpact.privacy.ledger import Budget, Ledger
from fedpact.privacy.statement import Protection, Statement
from tests.engine.runs import two_classes

CLIENTS, ROUNDS, DELTA = 10, 4, 1e-5
GAUSSIAN = [Clip(1.0), GaussianNoise(5.0)]
DISTRIBUTED = [Clip(1.0), GaussianNoise(5.0, where="distributed"), SecureSum()]
LOCAL = [Clip(1.0), GaussianNoise(5.0, where="local")]


def train(channel: Any = GAUSSIAN, **changed: Any) -> fp.Result:
    settings = {"rounds": ROUNDS, "engine": "in_process", **changed}
    algorithm = fp.FedAvg(lr=0.3, local_epochs=1, batch_size=8, weighting="uniform")
    return fp.train(
        fp.models.Logistic(), two_classes(CLIENTS), algorithm=algorithm, channel=channel, **settings
    )


def protection(result: fp.Result) -> Protection:
    (only,) = result.privacy.protections
    assert only.unit == "client"
    return only


def delta_of(epsilon: float, multiplier: float, rounds: int) -> float:
    """δ of so many Gaussian releases: Φ(μ/2 − ε/μ) − e^ε · Φ(−μ/2 − ε/μ) with μ = √rounds / multiplier."""
    mu = math.sqrt(rounds) / multiplier
    low, high = ((sign * mu / 2 - epsilon / mu) / math.sqrt(2) for sign in (1, -1))
    return 0.5 * math.erfc(-low) - math.exp(epsilon) * 0.5 * math.erfc(-high)


@pytest.mark.parametrize(("multiplier", "rounds"), [(5.0, 1), (5.0, 4), (1.5, 3)])
def test_epsilon_of_full_participation_is_worked_out_by_hand(multiplier: float, rounds: int) -> None:
    found = protection(train([Clip(1.0), GaussianNoise(multiplier)], rounds=rounds)).guarantee
    assert found.delta == DELTA
    assert delta_of(found.epsilon, multiplier, rounds) == pytest.approx(DELTA, rel=1e-6)


def test_epsilon_of_shared_noise_is_hardly_more_than_that_of_the_servers() -> None:
    # It is bounded by Rényi divergences, which cost a tenth, and by how far a sum of shares is from one draw.
    found = protection(train(DISTRIBUTED)).guarantee
    assert delta_of(found.epsilon, 5.0, ROUNDS) <= DELTA
    assert delta_of(found.epsilon / 1.12, 5.0, ROUNDS) >= DELTA


def test_epsilon_of_poisson_samples_is_that_of_another_accountant() -> None:
    accounting = pytest.importorskip("dp_accounting")
    found = protection(train(cohort=5, sampling="poisson")).guarantee
    event = accounting.PoissonSampledDpEvent(0.5, accounting.GaussianDpEvent(5.0))
    theirs = accounting.pld.PLDAccountant().compose(event, ROUNDS).get_epsilon(DELTA)
    assert found.epsilon == pytest.approx(theirs, rel=0.01)
    # Less than without sampling.
    assert delta_of(found.epsilon, 5.0, ROUNDS) > DELTA


def test_epsilon_of_laplace_noise_adds_up() -> None:
    # Pure ε = 1 / multiplier a round; of a few rounds together hardly less.
    found = protection(train([Clip(1.0, p=1), LaplaceNoise(5.0)])).guarantee
    assert ROUNDS / 5 * 0.95 <= found.epsilon <= ROUNDS / 5


@pytest.mark.parametrize(
    ("channel", "sampling", "claimed"),
    [
        (GAUSSIAN, "poisson", Poisson(0.5)),
        (GAUSSIAN, "fixed", FixedSize(5, CLIENTS)),
        (DISTRIBUTED, "fixed", Everyone()),
        (LOCAL, "poisson", Everyone()),
        (LOCAL, "fixed", Everyone()),
    ],
)
def test_amplification_is_claimed_only_against_those_who_do_not_see_who_is_asked(
    channel: Any, sampling: Any, claimed: Any
) -> None:
    (release,) = protection(train(channel, cohort=5, sampling=sampling)).releases
    assert release.sampling == claimed
    assert release.count == ROUNDS


def test_with_all_clients_in_every_round_nothing_is_claimed_from_sampling() -> None:
    for sampling in ("fixed", "poisson"):
        (release,) = protection(train(sampling=sampling)).releases
        assert release.sampling == Everyone()


def test_samples_of_a_fixed_size_are_accounted_for_under_replacement() -> None:
    fixed = protection(train(cohort=5)).guarantee
    everyone, poisson = (
        protection(train(**each)).guarantee for each in ({}, {"cohort": 5, "sampling": "poisson"})
    )
    assert fixed.relation == "replace_one"
    assert everyone.relation == poisson.relation == "add_or_remove"
    # Every sensitivity is doubled, and sampling half of the clients gains less than that.
    assert fixed.epsilon > poisson.epsilon


def test_the_mechanism_is_that_of_the_channel() -> None:
    (central,), (shared,) = (protection(train(channel)).releases for channel in (GAUSSIAN, DISTRIBUTED))
    assert isinstance(central.mechanism, Gaussian | DiscreteGaussian)
    assert isinstance(shared.mechanism, DiscreteGaussian)
    assert central.mechanism.noise_multiplier == 5.0
    # Of 10 clients ⌊20 / 3⌋ + 1 = 7 are in every sum that is opened.
    assert (shared.mechanism.noise_multiplier, shared.mechanism.shares) == (5.0, 7)
    assert shared.mechanism.dimension == 4


def test_without_noise_nothing_is_promised() -> None:
    statement = train([Clip(1.0)]).privacy
    assert statement.protections == ()
    assert statement.epsilon == math.inf
    assert "No differential privacy" in str(statement)


def test_a_statement_says_what_was_held_and_what_is_in_clear() -> None:
    statement = train(DISTRIBUTED).privacy
    assert statement.rounds == ROUNDS
    assert statement.smallest_cohort == CLIENTS
    assert statement.dropouts == 3
    assert statement.colluding == 0
    assert "who took part in which round" in statement.in_clear
    assert not any("weight" in told or "loss" in told for told in statement.in_clear)


@pytest.mark.parametrize("channel", [(), [Clip(1.0)], GAUSSIAN, LOCAL, DISTRIBUTED])
def test_a_statement_is_read_back_as_it_was_written(channel: Any, tmp_path: Path) -> None:
    statement = train(channel, folder=tmp_path).privacy
    assert Statement.from_json(statement.to_json()) == statement
    assert Result.load(tmp_path).privacy == statement


def test_what_colluding_clients_know_is_left_out_of_the_noise() -> None:
    noise = SkellamNoise(5.0, colluding=2)
    statement = train([Clip(1.0), noise, SecureSum()]).privacy
    assert statement.colluding == 2
    assert (
        delta_of(statement.epsilon, 5.0, ROUNDS) <= DELTA <= delta_of(statement.epsilon / 1.12, 5.0, ROUNDS)
    )


def ledger(path: Path, epsilon: float, **settings: Any) -> Ledger:
    return Ledger(path / "ledger.jsonl", Budget(epsilon, DELTA, **settings))


def test_every_release_is_charged(tmp_path: Path) -> None:
    spent = ledger(tmp_path, 5.0)
    result = train(ledger=spent)
    assert len(spent.charges()) == ROUNDS
    assert spent.spent().epsilon == pytest.approx(result.privacy.epsilon, rel=1e-9)


def test_a_release_beyond_the_budget_is_not_made(tmp_path: Path) -> None:
    budget = 1.3
    assert delta_of(budget, 5.0, 2) < DELTA < delta_of(budget, 5.0, 3)
    spent, met = ledger(tmp_path, budget), []
    with pytest.raises(PrivacyError, match=r"the budget is epsilon 1\.3 .* nothing was charged"):
        train(ledger=spent, folder=tmp_path / "run", on_round=met.append)
    assert [record["round"] for record in met] == [1, 2]
    assert len(spent.charges()) == 2
    # The model of the last round that was paid for is where it was, as a run of two rounds of this ledger has it.
    kept = sorted((tmp_path / "run" / "checkpoints").iterdir())
    before = [path.read_bytes() for path in kept]
    with pytest.raises(PrivacyError):
        train(ledger=spent, folder=tmp_path / "run", resume=True)
    assert [path.read_bytes() for path in sorted((tmp_path / "run" / "checkpoints").iterdir())] == before
    assert len(spent.charges()) == 2


def test_a_budget_holds_over_several_runs(tmp_path: Path) -> None:
    spent = ledger(tmp_path, 1.3)
    train(ledger=spent, rounds=1)
    train(ledger=spent, rounds=1)
    with pytest.raises(PrivacyError):
        train(ledger=Ledger(spent.path), rounds=1)


def test_a_round_that_is_held_again_is_charged_again(tmp_path: Path) -> None:
    def stop(record: Any) -> None:
        if record["round"] == 3:
            raise KeyboardInterrupt

    spent = ledger(tmp_path, 9.0)
    with pytest.raises(KeyboardInterrupt):
        train(ledger=spent, folder=tmp_path / "run", on_round=stop, keep=fp.Keep(every=2))
    assert len(spent.charges()) == 3
    # Its checkpoint was after round 2: round 3 is held with other noise.
    resumed = train(ledger=spent, folder=tmp_path / "run", resume=True, keep=fp.Keep(every=2))
    assert len(spent.charges()) == ROUNDS + 1
    (release,) = protection(resumed).releases
    assert release.count == ROUNDS + 1
    assert resumed.privacy.epsilon == pytest.approx(spent.spent().epsilon, rel=1e-9)


def test_a_ledger_without_noise_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no stage of the channel adds noise"):
        train([Clip(1.0)], ledger=ledger(tmp_path, 5.0))


def test_a_budget_that_sampling_cannot_be_charged_to_is_refused_before_any_round(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"budget is under add_or_remove, and with this job's sampling"):
        train(ledger=ledger(tmp_path, 5.0), cohort=5, on_round=lambda record: pytest.fail("a round was held"))


def test_rules_know_how_cohorts_are_drawn() -> None:
    assert Rules().sampling == "fixed"
    with pytest.raises(ConfigError, match="sampling"):
        train(sampling="shuffled")
