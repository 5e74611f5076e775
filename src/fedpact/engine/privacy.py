"""What a run released, as accountants know it, and the privacy statement that follows from it."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from fedpact.channel.channel import Channel
from fedpact.channel.correlated_noise import CorrelatedNoise
from fedpact.channel.noise import GaussianNoise, SkellamNoise
from fedpact.channel.round import ChannelRound
from fedpact.channel.transform import RoundContext
from fedpact.core.errors import ConfigError
from fedpact.core.grid import Grid
from fedpact.core.job import Job
from fedpact.engine.records import protects_records, record_protection, worst_of
from fedpact.engine.sampler import count_of
from fedpact.engine.work import Setting
from fedpact.privacy.accounting import account
from fedpact.privacy.events import Everyone, FixedSize, Poisson, Relation, Release, Sampling
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
        largest: the most that were asked.
        records: client → in how many rounds it was asked about its records, and the fewest rows that it had then.
    """

    releases: Counter[str]
    smallest: int | None = None
    largest: int = 0
    records: dict[str, list[int]] = field(default_factory=dict)

    @classmethod
    def of(cls, contents: Mapping[str, Any] | None) -> "Spent":
        """Return what `contents` wrote down."""
        contents = contents or {}
        return cls(
            Counter(contents.get("releases", {})),
            contents.get("smallest"),
            contents.get("largest", 0),
            {id: list(asked) for id, asked in contents.get("records", {}).items()},
        )

    def contents(self) -> dict[str, Any]:
        """Return it as plain data."""
        return {
            "releases": dict(self.releases),
            "smallest": self.smallest,
            "largest": self.largest,
            "records": self.records,
        }

    def note(self, release: Release | None, answered: int, asked: int) -> None:
        """Note a round."""
        if release is not None:
            self.releases[json.dumps(release.to_json(), sort_keys=True)] += 1
        self.smallest = answered if self.smallest is None else min(self.smallest, answered)
        self.largest = max(self.largest, asked)

    def note_records(self, sizes: Mapping[str, int]) -> None:
        """Note that clients with so many rows were asked about their records."""
        for id, n in sizes.items():
            rounds, fewest = self.records.get(id, (0, n))
            self.records[id] = [rounds + 1, min(n, fewest)]

    def events(self) -> tuple[Release, ...]:
        """Return what was released."""
        events = []
        for written, count in self.releases.items():
            release = Release.from_json(json.loads(written))
            events.append(Release(release.mechanism, release.sampling, release.count * count))
        return tuple(events)


def release_of(setting: Setting, round: ChannelRound, present: int) -> Release | None:
    """Return what a round releases about a client; None where no noise is added.

    Args:
        setting: channel and rules.
        round: the channel in this round.
        present: how many clients there are to sample from.
    """
    mechanism = setting.channel.mechanism(round)
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


def default_delta(clients: int) -> float:
    """Return the δ of a statement about so many clients."""
    return min(_LARGEST_DELTA, float(clients) ** -_DELTA_EXPONENT)


def check_accountable(setting: Setting, present: int, rounds: int) -> None:
    """Refuse noise and sampling that no accountant here covers.

    Args:
        setting: channel and rules.
        present: how many clients there are.
        rounds: length of the run.

    Raises:
        ConfigError: there is none, or clients take part more often than the noise is made for.
        DependencyError: it needs a library that is not installed.
    """
    noise = setting.channel.noise
    if noise is not None:
        if isinstance(noise, CorrelatedNoise):
            _check_participation(noise, setting, present, rounds)
        mechanism = noise.mechanism(RoundContext(0, sensitivity=1.0, grid=Grid(2.0**-30, 1.0)), 1)
        if mechanism is not None:
            release = Release(mechanism, sampling_of(setting, present))
            account([release], default_delta(present), relation_of([release]))
    # Of a client with so many rows that a batch is a sample of them.
    about_records = worst_of(setting.algorithm, [1 << 40])
    if about_records is not None:
        account([about_records], _LARGEST_DELTA, relation_of([about_records]))


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


def statement_of(
    job: Job,
    channel: Channel,
    spent: Spent,
    rounds: int,
    clients: int,
    evaluated: bool,
    algorithm: Any = None,
) -> Statement:
    """Return the privacy statement of a run.

    Args:
        job: the job.
        channel: what updates went through.
        spent: what was released.
        rounds: rounds held.
        clients: how many clients there are.
        evaluated: whether clients judged models on rows held aside.
        algorithm: the algorithm, which may protect single records.
    """
    noise, mask, releases = channel.noise, channel.mask, spent.events()
    protections: list[Protection] = []
    if noise is not None and releases:
        guarantee = account(releases, default_delta(clients), relation_of(releases))
        protections.append(Protection("client", guarantee, releases, noise.against()))
    records = sum(n for _, n in spent.records.values())
    about_records = record_protection(algorithm, spent.records, default_delta(max(1, records)))
    if about_records is not None:
        protections.append(about_records)
    colluding = 0 if mask is None else mask.colluding(spent.largest)
    if isinstance(noise, GaussianNoise | SkellamNoise) and noise.where == "distributed":
        colluding = min(colluding, noise.colluding)
    in_clear = ["who took part in which round", "when, and for how long"]
    if (mask is None or mask.weighs) and channel.weighs_rows:
        in_clear.append("how many rows each client has")
    if mask is None and noise is None and not protects_records(algorithm):
        in_clear.append("each client's training loss")
    if job.preprocess:
        in_clear.append("the sums that preparation was fitted from")
    if evaluated:
        in_clear.append("each client's metrics on the rows it holds aside")
    return Statement(
        server_sees=channel.seen(),
        protections=tuple(protections),
        rounds=rounds,
        smallest_cohort=spent.smallest or 0,
        dropouts=None if mask is None else mask.dropouts(spent.largest),
        colluding=colluding,
        in_clear=tuple(in_clear),
        trusted=None if mask is None else mask.trusted(),
    )
