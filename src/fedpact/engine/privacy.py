"""What a run released, as accountants know it, and the privacy statement that follows from it."""

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from fedpact.channel.channel import Channel
from fedpact.channel.correlated_noise import CorrelatedNoise
from fedpact.channel.noise import GaussianNoise, Noise, SkellamNoise
from fedpact.channel.round import ChannelRound
from fedpact.channel.transform import RoundContext
from fedpact.core.errors import ConfigError
from fedpact.core.grid import Grid
from fedpact.engine.records import record_protection, worst_of
from fedpact.engine.sampler import count_of
from fedpact.engine.work import Setting
from fedpact.privacy.accounting import Guarantee, account
from fedpact.privacy.events import Everyone, FixedSize, Poisson, Relation, Release, Sampling
from fedpact.privacy.ledger import Budget, Ledger
from fedpact.privacy.statement import Protection, Statement

# δ for so many clients is 1 / clients^1.1, so that it is below one over their number, and never more than this.
_DELTA_EXPONENT = 1.1
_LARGEST_DELTA = 1e-5


@dataclass
class Spent:
    """What a run has released so far, and with whom.

    Args:
        releases: a release as JSON → how often.
        smallest: the fewest clients in the sum of a round.
        asked: how many clients were asked, in one round or another.
        begun: in how many rounds something was released, or was about to be.
        records: client → in how many rounds it was asked about its records, and the fewest rows that it had then.
        population: what names the clients that there are, where their turns must not shift; "" as long as none had one.
    """

    releases: Counter[str]
    smallest: int | None = None
    asked: set[int] = field(default_factory=set)
    begun: int = 0
    records: dict[str, list[int]] = field(default_factory=dict)
    population: str = ""

    @classmethod
    def of(cls, contents: Mapping[str, Any] | None) -> "Spent":
        """Return what `contents` wrote down."""
        contents = contents or {}
        return cls(
            Counter(contents.get("releases", {})),
            contents.get("smallest"),
            set(contents.get("asked", ())),
            contents.get("begun", 0),
            {id: list(asked) for id, asked in contents.get("records", {}).items()},
            contents.get("population", ""),
        )

    def contents(self) -> dict[str, Any]:
        """Return it as plain data."""
        return {
            "releases": dict(self.releases),
            "smallest": self.smallest,
            "asked": sorted(self.asked),
            "begun": self.begun,
            "records": self.records,
            "population": self.population,
        }

    def note_release(self, release: Release | None, round: int) -> None:
        """Note what a round is about to release; None where an earlier round's release counts for it."""
        if release is not None:
            self.releases[json.dumps(release.to_json(), sort_keys=True)] += 1
        self.begun = max(self.begun, round + 1)

    def note(self, answered: int, asked: int) -> None:
        """Note a round that was held."""
        self.smallest = answered if self.smallest is None else min(self.smallest, answered)
        self.asked.add(asked)

    def catch_up(self, later: "Spent") -> None:
        """Add what was released after this was written down, by a process that died."""
        self.releases |= later.releases
        self.begun = max(self.begun, later.begun)
        for id, (rounds, n) in later.records.items():
            known, fewest = self.records.get(id, (0, n))
            self.records[id] = [max(rounds, known), min(n, fewest)]

    def note_records(self, sizes: Mapping[str, int]) -> None:
        """Note that clients with so many rows were asked about their records."""
        for id, n in sizes.items():
            rounds, fewest = self.records.get(id, (0, n))
            self.records[id] = [rounds + 1, min(n, fewest)]

    def check_turns(self, noise: Noise | None, ids: Sequence[str]) -> None:
        """Refuse other clients than before, where noise counts on everyone's turn coming round when it should.

        Raises:
            ConfigError: clients have come or gone.
        """
        if not isinstance(noise, CorrelatedNoise):
            return
        digest = hashlib.sha256()
        for id in ids:
            digest.update(id.encode() + b"\0")
        named = digest.hexdigest()
        if self.population not in ("", named):
            raise ConfigError(
                "CorrelatedNoise counts on clients that are the same in all rounds, and some have come or gone: their "
                "turns would shift, and somebody's come too soon. Start a run with the clients that there are now."
            )
        self.population = named

    def events(self) -> tuple[Release, ...]:
        """Return what was released."""
        events = []
        for written, count in self.releases.items():
            release = Release.from_json(json.loads(written))
            events.append(Release(release.mechanism, release.sampling, release.count * count))
        return tuple(events)


def release_of(setting: Setting, round: ChannelRound, present: int, again: bool = False) -> Release | None:
    """Return what a round releases about a client; None where no noise is added, or an earlier round's counts for it.

    Args:
        setting: channel and rules.
        round: the channel in this round.
        present: how many clients there are to sample from.
        again: whether the round was held before, by a process that died.
    """
    mechanism, noise = setting.channel.mechanism(round), setting.channel.noise
    if again and isinstance(noise, CorrelatedNoise):
        # What follows has other noise than what was released: together no more than two whole runs.
        mechanism = noise.whole()
    if mechanism is None:
        return None
    return Release(mechanism, sampling_of(setting, present))


def sampling_of(setting: Setting, present: int) -> Sampling:
    """Return how clients are sampled, as far as it is hidden from whoever the noise is against.

    The server knows whom it asks: against it, nothing is gained by sampling.
    """
    size = count_of(setting.rules.cohort, present)
    noise = setting.channel.noise
    hidden = noise is not None and noise.where == "central" and not isinstance(noise, CorrelatedNoise)
    if size >= present or not hidden or setting.rules.sampling == "cyclic":
        return Everyone()
    if setting.rules.sampling == "poisson":
        return Poisson(size / present)
    return FixedSize(size, present)


def relation_of(releases: Sequence[Release]) -> Relation:
    """Return the neighbouring relation of an account: where samples have a fixed size, so has the data set."""
    return (
        "replace_one" if any(isinstance(each.sampling, FixedSize) for each in releases) else "add_or_remove"
    )


def _relation(noise: Noise, releases: Sequence[Release]) -> Relation:
    """Return the relation of an account of noise: that there is an update tells, of one alone, who sent it."""
    return "replace_one" if noise.where == "local" else relation_of(releases)


def _under_replacement(guarantee: Guarantee, releases: Sequence[Release]) -> Guarantee:
    """Return a guarantee with a note of what it is where a client is replaced by another, if that is known."""
    if guarantee.relation == "replace_one":
        return guarantee
    try:
        replaced = account(releases, guarantee.delta, "replace_one")
    except ConfigError:
        return guarantee
    note = f"Compared with a client in the place of another, epsilon is {replaced.epsilon:.4g} at the same delta."
    return replace(guarantee, notes=(*guarantee.notes, note))


def default_delta(clients: int) -> float:
    """Return the δ of a statement about so many clients."""
    return min(_LARGEST_DELTA, float(clients) ** -_DELTA_EXPONENT)


def check_accountable(setting: Setting, present: int, rounds: int, ledger: Ledger | None = None) -> None:
    """Refuse noise and sampling that no accountant here covers.

    Args:
        setting: channel and rules.
        present: how many clients there are.
        rounds: length of the run.
        ledger: what will be charged for the releases; None for nothing.

    Raises:
        ConfigError: there is none, or clients take part more often than the noise is made for.
        DependencyError: it needs a library that is not installed.
    """
    noise, release = setting.channel.noise, None
    if noise is not None:
        if isinstance(noise, CorrelatedNoise):
            _check_participation(noise, setting, present, rounds)
        mechanism = noise.mechanism(RoundContext(0, sensitivity=1.0, grid=Grid(2.0**-30, 1.0)), 1)
        if mechanism is not None:
            release = Release(mechanism, sampling_of(setting, present))
            account([release], default_delta(present), _relation(noise, [release]))
    # Of a client with so many rows that a batch is a sample of them.
    about_records = worst_of(setting.algorithm, [1 << 40])
    if about_records is not None:
        # Whether it can be accounted for shows in one step; of so many rows an epoch has billions.
        account([replace(about_records, count=1)], _LARGEST_DELTA, relation_of([about_records]))
    if ledger is not None:
        by_record = ledger.budget.unit == "record" and about_records is not None
        _check_budget(ledger.budget, about_records if by_record else release)


def _check_budget(budget: Budget, release: Release | None) -> None:
    """Refuse a budget that the releases of a run cannot be charged to."""
    if release is None:
        return
    if budget.unit == "owner":
        raise ConfigError(
            "the ledger's budget is for an owner, and the noise of the channel hides a client: an owner may have "
            'several. Give a ledger whose unit is "client".'
        )
    try:
        account([release], budget.delta, budget.relation)
    except ConfigError as error:
        raise ConfigError(
            f"the ledger's budget is under {budget.relation}, and with this job's sampling {error}"
        ) from None


def _check_participation(noise: CorrelatedNoise, setting: Setting, present: int, rounds: int) -> None:
    """Refuse a run in which clients take part more often, or sooner again, than noise is made for."""
    size, sampling = count_of(setting.rules.cohort, present), setting.rules.sampling
    if size < present and sampling != "cyclic":
        raise ConfigError(
            f'CorrelatedNoise bounds how often a client takes part, and with sampling="{sampling}" nothing does: set '
            'sampling="cyclic".'
        )
    if rounds > noise.rounds:
        raise ConfigError(
            f"CorrelatedNoise is made for {noise.rounds} rounds, and the job has {rounds}; set its rounds."
        )
    separation = present // size
    participations = -(-rounds // separation)
    if noise.separation > separation or noise.participations < participations:
        raise ConfigError(
            f"with {size} of {present} clients a round, each takes part up to {participations} times in {rounds} "
            f"rounds, {separation} apart; write CorrelatedNoise(..., participations={participations}, "
            f"separation={separation})."
        )


def _against(noise: Noise, releases: Sequence[Release]) -> str:
    """Return who may look at what is released, in a phrase."""
    if all(isinstance(each.sampling, Everyone) for each in releases):
        return noise.against()
    return f"{noise.against()}, nor those who learn who took part or know the job's seed, from which that is drawn"


def statement_of(
    channel: Channel,
    spent: Spent,
    rounds: int,
    clients: int,
    algorithm: Any = None,
    in_clear: Sequence[str] = (),
) -> Statement:
    """Return the privacy statement of a run.

    Args:
        channel: what updates went through.
        spent: what was released.
        rounds: rounds held.
        clients: how many clients there are.
        algorithm: the algorithm, which may protect single records.
        in_clear: what was told in clear, in phrases.
    """
    noise, mask, releases = channel.noise, channel.mask, spent.events()
    protections: list[Protection] = []
    if noise is not None and releases:
        guarantee = account(releases, default_delta(clients), _relation(noise, releases))
        guarantee = _under_replacement(guarantee, releases)
        protections.append(Protection("client", guarantee, releases, _against(noise, releases)))
    records = sum(n for _, n in spent.records.values())
    about_records = record_protection(algorithm, spent.records, default_delta(max(1, records)))
    if about_records is not None:
        protections.append(about_records)
    asked = spent.asked or {0}
    colluding = 0 if mask is None else min(map(mask.colluding, asked))
    if isinstance(noise, GaussianNoise | SkellamNoise) and noise.where == "distributed":
        colluding = min(colluding, noise.colluding)
    return Statement(
        server_sees=channel.seen(),
        protections=tuple(protections),
        rounds=rounds,
        smallest_cohort=spent.smallest or 0,
        dropouts=None if mask is None else min(map(mask.dropouts, asked)),
        colluding=colluding,
        in_clear=tuple(in_clear),
        trusted=None if mask is None else mask.trusted(),
    )
