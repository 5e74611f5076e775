"""What a run releases about single records, where its algorithm trains with differential privacy for them.

Such an algorithm has a method `record_release(n, rounds)`, which returns what a client with n rows releases about one
of them in so many rounds. Records of different clients are told about apart, so the statement is about the client whose
records are told the most about.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import groupby
from typing import Any

import numpy as np

from fedpact.core.errors import ConfigError
from fedpact.data.preprocess.steps import ResamplingStep
from fedpact.engine.population import Population, sizes_of
from fedpact.privacy.accounting import account
from fedpact.privacy.events import Everyone, FixedSize, Poisson, Release
from fedpact.privacy.ledger import Ledger
from fedpact.privacy.statement import Protection

AGAINST = "everybody, the server and the other clients with it"
_NOTES = (
    "It is that of the client whose records are told the most about, in all rounds in which it was asked.",
    "How many records each client has is public: a record that is left out is as one that adds nothing.",
)
# An accountant takes up to a second for each.
_JUDGED = 8


def record_release(algorithm: Any, n: int, rounds: int) -> Release | None:
    """Return what a client with n rows releases about one of them in so many rounds; None where nothing bounds it."""
    own = getattr(algorithm, "record_release", None)
    return None if own is None else own(n, rounds)


def protects_records(algorithm: Any) -> bool:
    """Return whether an algorithm bounds what it releases about a record."""
    return record_release(algorithm, 1, 1) is not None


def charges_records(ledger: Ledger | None, algorithm: Any) -> bool:
    """Return whether a ledger is of a budget for records, and the algorithm bounds what it releases about them."""
    return ledger is not None and ledger.budget.unit == "record" and protects_records(algorithm)


def check_records_stay(algorithm: Any, steps: Iterable[Any]) -> None:
    """Refuse steps that resample beside an algorithm that bounds what it releases about a record.

    A record may then be trained on several times, as a copy of itself or in synthetic rows, or because of others, and
    no clipping of single rows bounds what it does.

    Raises:
        ConfigError: there is such a step.
    """
    names = [type(step).__name__ for step in steps if isinstance(step, ResamplingStep)]
    if names and protects_records(algorithm):
        raise ConfigError(
            f"preprocess resamples by {' and '.join(names)}, and {type(algorithm).__name__} protects single records "
            "(dp): a record would count several times over, or decide which others count, and its influence would not "
            "be bounded. Leave one of them out; weights of classes in the model are bounded by the clipping."
        )


def rows_of(
    population: Population, ids: Sequence[str], failed: Collection[str] | None = None
) -> dict[str, int]:
    """Return client → its number of training rows, of those clients that tell it.

    Args:
        population: the clients.
        ids: which of them.
        failed: those that need not tell it; None for all.

    Raises:
        Exception: one of the others does not.
    """
    with suppress(Exception):
        return dict(zip(ids, sizes_of(population, ids), strict=True))
    sizes = {}
    for id in ids:
        try:
            sizes[id] = population.size(id)
        except Exception:
            if failed is not None and id not in failed:
                raise
    return sizes


def worst_of(algorithm: Any, sizes: Iterable[int], rounds: int = 1) -> Release | None:
    """Return a release that tells no less about a record than that of any of these clients in so many rounds.

    Args:
        algorithm: the algorithm.
        sizes: the clients' numbers of rows.
        rounds: how many rounds.
    """
    releases = {release for n in set(sizes) if (release := record_release(algorithm, n, rounds))}
    return next(iter(_worst(releases, 1)), None)


def record_protection(algorithm: Any, asked: Mapping[str, Sequence[int]], delta: float) -> Protection | None:
    """Return the guarantee for records; None where there is none.

    Args:
        algorithm: the algorithm.
        asked: client → in how many rounds it was asked, and the fewest rows that it had.
        delta: δ.
    """
    most: dict[int, int] = {}
    for rounds, n in asked.values():
        most[n] = max(rounds, most.get(n, 0))
    releases = {release for n, rounds in most.items() if (release := record_release(algorithm, n, rounds))}
    if not releases:
        return None
    sized = any(isinstance(release.sampling, FixedSize) for release in releases)
    relation = "replace_one" if sized else "add_or_remove"
    found = [(account([release], delta, relation), release) for release in _worst(releases, _JUDGED)]
    guarantee, release = max(found, key=lambda pair: pair[0].epsilon)
    guarantee = replace(guarantee, notes=(*guarantee.notes, *_NOTES))
    return Protection("record", guarantee, (release,), AGAINST)


def _worst(releases: Iterable[Release], most: int) -> list[Release]:
    """Return as many releases at most, for each mechanism, one of which tells more than any of those given."""
    worst = [release for release in releases if isinstance(release.sampling, FixedSize)]
    sampled = sorted(
        (r for r in releases if not isinstance(r.sampling, FixedSize)), key=lambda r: repr(r.mechanism)
    )
    for mechanism, group in groupby(sampled, key=lambda r: r.mechanism):
        front: list[tuple[float, int]] = []
        for rate, count in sorted(((_rate(r), r.count) for r in group), reverse=True):
            if not front or count > front[-1][1]:
                front.append((rate, count))
        for part in np.array_split(np.arange(len(front)), min(most, len(front))):
            # The largest rate of the part, and its largest count.
            rate, count = front[part[0]][0], front[part[-1]][1]
            worst.append(Release(mechanism, Poisson(rate) if rate < 1 else Everyone(), count))
    return worst


def _rate(release: Release) -> float:
    return release.sampling.rate if isinstance(release.sampling, Poisson) else 1.0
