"""What a privacy statement claims is true of the run: who may look, what is compared, and what was released twice."""

import math
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

import fedpact as fp
from fedpact.algorithms.fedavg import FedAvg
from fedpact.channel.channel import Channel
from fedpact.channel.clip import Clip
from fedpact.channel.correlated_noise import CorrelatedNoise
from fedpact.channel.noise import GaussianNoise, LaplaceNoise, Noise
from fedpact.channel.secure_sum import SecureSum
from fedpact.channel.transform import RoundContext
from fedpact.channel.zero_outliers import ZeroOutliers
from fedpact.core.errors import ChannelError, ConfigError, PrivacyError, QuorumError
from fedpact.core.grid import Grid
from fedpact.engine.in_process import InProcess
from fedpact.engine.privacy import Spent, statement_of
from fedpact.engine.work import Intake, Work
from fedpact.privacy.accounting import account
from fedpact.privacy.events import DiscreteGaussian, Poisson, Release
from fedpact.privacy.ledger import Budget, Ledger
from fedpact.privacy.statement import Statement
from tests.engine.runs import two_classes

CLIENTS, ROUNDS, DELTA = 10, 4, 1e-5
UNIFORM = FedAvg(lr=0.3, local_epochs=1, batch_size=8, weighting="uniform")
CENTRAL = [Clip(1.0), GaussianNoise(5.0)]
LOCAL = [Clip(1.0), GaussianNoise(5.0, where="local")]
CORRELATED = [Clip(1.0), CorrelatedNoise(5.0, rounds=ROUNDS, participations=ROUNDS)]


def train(channel: Any, **changed: Any) -> fp.Result:
    settings = {"rounds": ROUNDS, "engine": "in_process", **changed}
    return fp.train(
        fp.models.Logistic(), two_classes(CLIENTS), algorithm=UNIFORM, channel=channel, **settings
    )


def ledger(path: Path, epsilon: float, **settings: Any) -> Ledger:
    return Ledger(path / "ledger.jsonl", Budget(epsilon, DELTA, **settings))


def delta_of(epsilon: float, mu: float) -> float:
    """δ of a Gaussian whose mean moves by μ standard deviations: Φ(μ/2 − ε/μ) − e^ε · Φ(−μ/2 − ε/μ)."""
    low, high = ((sign * mu / 2 - epsilon / mu) / math.sqrt(2) for sign in (1, -1))
    return 0.5 * math.erfc(-low) - math.exp(epsilon) * 0.5 * math.erfc(-high)


class Asking(InProcess):
    """Notes which clients are asked."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[str] = []

    def ask(self, work: Work, ids: Any, intake: Intake) -> None:
        self.asked += ids
        super().ask(work, ids, intake)


def test_updates_with_noise_of_their_own_are_paid_for_before_they_are_sent(tmp_path: Path) -> None:
    engine, spent = Asking(), ledger(tmp_path, 0.01, relation="replace_one")
    with pytest.raises(PrivacyError, match="nothing was charged"):
        train(LOCAL, engine=engine, ledger=spent)
    assert engine.asked == []


def test_updates_that_were_sent_are_paid_for_although_their_round_fails(tmp_path: Path) -> None:
    class Short(InProcess):
        def ask(self, work: Work, ids: Any, intake: Intake) -> None:
            super().ask(work, ids[:5], intake)

    spent = ledger(tmp_path, 9.0, relation="replace_one")
    with pytest.raises(QuorumError):
        train(LOCAL, engine=Short(), quorum=CLIENTS, ledger=spent)
    assert len(spent.charges()) == 1
    # What only a sum would have released was not.
    central = Ledger(tmp_path / "central.jsonl", Budget(9.0, DELTA))
    with pytest.raises(QuorumError):
        train(CENTRAL, engine=Short(), quorum=CLIENTS, ledger=central)
    assert central.charges() == ()


def test_of_an_update_that_the_server_sees_another_in_its_place_is_what_is_compared() -> None:
    # Who sent it is known; another update in its place moves it by two bounds: μ = 2 · √4 / 5.
    guarantee = train(LOCAL).privacy.protections[0].guarantee
    assert guarantee.relation == "replace_one"
    assert delta_of(guarantee.epsilon, 0.8) == pytest.approx(DELTA, rel=1e-6)


def test_a_statement_about_one_client_more_or_less_tells_what_replacing_one_costs() -> None:
    statement = train(CENTRAL).privacy
    # μ = √4 / 5, and twice that where a client is replaced.
    assert delta_of(statement.epsilon, 0.4) == pytest.approx(DELTA, rel=1e-6)
    (found,) = re.findall(r"in the place of another, epsilon is ([\d.]+) at the same delta", str(statement))
    assert delta_of(float(found), 0.8) == pytest.approx(DELTA, rel=0.01)
    assert Statement.from_json(statement.to_json()) == statement


def test_what_sampling_gains_is_claimed_against_nobody_who_knows_the_sample() -> None:
    sentence = "nor those who learn who took part or know the job's seed"
    assert sentence in str(train(CENTRAL, cohort=5, sampling="poisson").privacy)
    assert sentence in str(train(CENTRAL, cohort=5).privacy)
    assert sentence not in str(train(CENTRAL).privacy)


def test_a_statement_holds_for_the_weakest_round() -> None:
    channel = Channel([Clip(1.0), SecureSum()], UNIFORM)
    # ⌊2n/3⌋ + 1 = 4 of 5 clients open a sum, and 3 of 4; so 2·4 − 5 − 1 = 2 may work with the server, and 1.
    assert statement_of(channel, Spent(Counter(), 5, {5}), 1, 9).colluding == 2
    assert statement_of(channel, Spent(Counter(), 4, {4, 5}), 2, 9).colluding == 1


def stop(record: Any) -> None:
    if record["round"] == 3:
        raise KeyboardInterrupt


def test_correlated_noise_that_is_drawn_anew_is_paid_for_as_another_run(tmp_path: Path) -> None:
    spent = ledger(tmp_path, 99.0)
    kept: dict[str, Any] = {"folder": tmp_path / "run", "keep": fp.Keep(every=2), "ledger": spent}
    with pytest.raises(KeyboardInterrupt):
        train(CORRELATED, on_round=stop, **kept)
    assert len(spent.charges()) == 1
    # Round 3 was released, and behind the checkpoint of round 2 it is again, with other noise.
    twice = train(CORRELATED, resume=True, **kept).privacy
    assert len(spent.charges()) == 2
    (release,) = twice.protections[0].releases
    assert release.count == 2
    assert twice.epsilon > train(CORRELATED).privacy.epsilon


def test_a_run_that_goes_on_where_it_was_stopped_pays_for_correlated_noise_once(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        train(CORRELATED, on_round=stop, folder=tmp_path)
    statement = train(CORRELATED, resume=True, folder=tmp_path).privacy
    assert statement.protections[0].releases[0].count == 1
    assert "Released once, with noise for a run as a whole;" in str(statement)
    # They hold the noise of past rounds, for later ones to take back.
    assert "nor those who read its checkpoints" in str(statement)


def test_rounds_that_no_checkpoint_holds_are_in_the_statement_all_the_same(tmp_path: Path) -> None:
    kept: dict[str, Any] = {"folder": tmp_path, "keep": fp.Keep(every=2)}
    with pytest.raises(KeyboardInterrupt):
        train(CENTRAL, on_round=stop, **kept)
    (release,) = train(CENTRAL, resume=True, **kept).privacy.protections[0].releases
    assert release.count == ROUNDS + 1


def test_a_run_without_noise_writes_down_no_releases(tmp_path: Path) -> None:
    train([Clip(1.0)], folder=tmp_path)
    assert not (tmp_path / "spent.json").exists()


def test_a_budget_of_owners_is_not_charged_for_clients(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r'an owner may have several\. Give a ledger whose unit is "client"'
    ):
        train(CENTRAL, ledger=ledger(tmp_path, 9.0, unit="owner"))


def test_noise_of_a_whole_run_wants_a_bound_that_no_client_moves() -> None:
    noise = CorrelatedNoise(1.0, rounds=4, participations=4)
    with pytest.raises(ChannelError, match="that of ZeroOutliers follows the clients; give ZeroOutliers a"):
        Channel([ZeroOutliers(), Clip(1.0), noise], UNIFORM)
    Channel([ZeroOutliers(norm=5.0), Clip(1.0), noise], UNIFORM)


def context(asked: int) -> RoundContext:
    return RoundContext(0, sensitivity=1.0, asked=asked, grid=Grid(2.0**-20, 1.0))


@pytest.mark.parametrize("asked", [1, 2, 10, 1000])
def test_sums_of_laplace_noise_stay_within_their_ring_but_once_in_a_quadrillion(asked: int) -> None:
    noise = LaplaceNoise(3.0, where="local")
    scale = noise.sampler(context(asked), 1, 1)[1] / math.sqrt(2)
    most = noise.most(context(asked), 1) / (scale * math.sqrt(asked))
    # P(|X| ≥ s) = e^{−s/b} of one. E e^{λX} = 1 / (1 − λ²b²): of n it is at most 2·e^{−λs} / (1 − λ²b²)^n, here for
    # λ = 1 / (b·√n).
    assert math.exp(-most) * (1 if asked == 1 else 2 / (1 - 1 / asked) ** asked) < 1e-15


@pytest.mark.parametrize(
    ("noise", "expected"),
    [
        (GaussianNoise(2.0), 2.0),
        # Each of nine clients adds all of it: 2 · √9.
        (GaussianNoise(2.0, where="local"), 6.0),
        # Each adds a share for a cohort of one, of which there are nine.
        (GaussianNoise(2.0, where="distributed"), 6.0),
    ],
)
def test_the_noise_that_is_measured_is_that_of_the_sum(noise: Noise, expected: float) -> None:
    assert noise.std(context(9), 1, 9) == pytest.approx(expected, rel=1e-5)


def test_a_bound_that_follows_the_clients_costs_an_account_no_time() -> None:
    # Whatever a step of the grid stands for, σ over the bound is what one draw costs: 300 events are counted as one.
    releases = [Release(DiscreteGaussian(1.0, 50.0 + i, 8), Poisson(0.01)) for i in range(300)]
    one = Release(DiscreteGaussian(1.0, 50.0, 8), Poisson(0.01), 300)
    assert account(releases, DELTA) == account([one], DELTA)
    # Of a sum of shares it is not: they are no single draw, the less so the coarser the grid.
    coarse, fine = (account([Release(DiscreteGaussian(1.0, l2, 8, 4))], DELTA).epsilon for l2 in (1.5, 50.0))
    assert coarse > fine


def test_an_empty_cohort_without_noise_is_named_as_what_it_is() -> None:
    # Of three clients none is drawn in 8 of 27 rounds: (1 − 1/3)³.
    with pytest.raises(
        QuorumError, match=r'no client was drawn: with sampling="poisson" and a cohort of 1 .* larger'
    ):
        fp.train(
            fp.models.Logistic(),
            two_classes(3),
            algorithm=UNIFORM,
            channel=[Clip(1.0)],
            cohort=1,
            sampling="poisson",
            rounds=60,
            engine="in_process",
        )


def test_a_statement_can_be_read_at_another_delta() -> None:
    statement = train(CENTRAL).privacy
    looser = statement.at(1e-3)
    guarantee = looser.protections[0].guarantee
    # Four Gaussian releases of multiplier 5 are one of μ = √4 / 5.
    assert delta_of(guarantee.epsilon, 2 / 5) == pytest.approx(1e-3, rel=0.2)
    assert looser.epsilon < statement.epsilon
    assert looser.at(statement.protections[0].guarantee.delta).epsilon == statement.epsilon
