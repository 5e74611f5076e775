"""The privacy statement: what a run kept secret from whom, in words and in numbers."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from fedpact.privacy.accounting import Guarantee, account
from fedpact.privacy.events import (
    Everyone,
    FixedSize,
    MatrixFactorized,
    Poisson,
    Release,
    TreeAggregation,
)

_RELATIONS = {
    "add_or_remove": "a data set with one {unit} more or less",
    "replace_one": "a data set in which one {unit} is replaced by another",
}


@dataclass(frozen=True)
class Protection:
    """One guarantee of differential privacy.

    Args:
        unit: what is protected: "client", "record" or "owner".
        guarantee: ε, δ, and how they were found.
        releases: what it was found from.
        against: who may look at what was released.
    """

    unit: str
    guarantee: Guarantee
    releases: tuple[Release, ...]
    against: str

    def sentences(self) -> list[str]:
        """Return what it says."""
        found = self.guarantee
        relation = _RELATIONS[found.relation].format(unit=self.unit)
        sampled = "; ".join(dict.fromkeys(_sampled(release) for release in self.releases))
        return [
            f"({_number(found.epsilon)}, {found.delta:.3g})-differential privacy for each {self.unit}, against "
            f"{self.against}. It compares a run with one on {relation} (accountant: {found.accountant}).",
            f"Released {_times(self.releases)}; {sampled}.",
            *found.notes,
        ]

    def to_json(self) -> dict[str, Any]:
        """Return it as plain data."""
        return {
            "unit": self.unit,
            "against": self.against,
            **self.guarantee.to_json(),
            "releases": [release.to_json() for release in self.releases],
        }


@dataclass(frozen=True)
class Statement:
    """What a run protects, and what it does not.

    Args:
        server_sees: what the server sees of a client's update.
        protections: guarantees of differential privacy; none where there is no noise.
        rounds: rounds held.
        smallest_cohort: the fewest clients in the sum of a round.
        dropouts: how many clients of the largest cohort may drop out of a masked sum; None where none is masked.
        colluding: how many of the clients in a sum may work with the server.
        in_clear: what was released without any protection.
        trusted: who could read a single update all the same, in a sentence; None where nobody could, or everybody.
        released: what was released, in a phrase.
    """

    server_sees: str
    protections: tuple[Protection, ...]
    rounds: int
    smallest_cohort: int
    dropouts: int | None
    colluding: int
    in_clear: tuple[str, ...]
    trusted: str | None = None
    released: str = "the models that were released"

    @property
    def epsilon(self) -> float:
        """ε of the first guarantee; infinite where there is none."""
        return self.protections[0].guarantee.epsilon if self.protections else math.inf

    def at(self, delta: float) -> "Statement":
        """Return the statement with the ε of this δ.

        Raises:
            ConfigError: δ is not between 0 and 1.
        """
        protections = (
            replace(each, guarantee=account(each.releases, delta, each.guarantee.relation))
            for each in self.protections
        )
        return replace(self, protections=tuple(protections))

    def sentences(self) -> list[str]:
        """Return the statement in sentences."""
        said = [f"The server sees {self.server_sees}."]
        for protection in self.protections:
            said += protection.sentences()
        if not self.protections:
            said.append(f"No differential privacy: nothing bounds what {self.released} say about a client.")
        said.append(f"{self.rounds} rounds; the smallest sum was of {self.smallest_cohort} clients.")
        if self.dropouts is not None:
            said.append(
                f"Up to {self.dropouts} clients may drop out of a masked sum, and up to {self.colluding} may work with "
                "the server."
            )
        if self.trusted:
            said.append(self.trusted)
        if self.in_clear:
            beside = "; the guarantee above does not cover it" if self.protections else ""
            said.append(f"Told in clear: {', '.join(self.in_clear)}{beside}.")
        return said

    def __str__(self) -> str:
        return "\n".join(self.sentences())

    def to_json(self) -> dict[str, Any]:
        """Return the statement as plain data."""
        return {
            "server_sees": self.server_sees,
            "protections": [protection.to_json() for protection in self.protections],
            "rounds": self.rounds,
            "smallest_cohort": self.smallest_cohort,
            "dropouts": self.dropouts,
            "colluding": self.colluding,
            "in_clear": list(self.in_clear),
            "trusted": self.trusted,
            "released": self.released,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Statement":
        """Return the statement that `to_json` wrote down."""
        protections = []
        for each in data["protections"]:
            epsilon = math.inf if each["epsilon"] is None else float(each["epsilon"])
            guarantee = Guarantee(
                epsilon, each["delta"], each["accountant"], each["relation"], tuple(each["notes"])
            )
            releases = tuple(Release.from_json(release) for release in each["releases"])
            protections.append(Protection(each["unit"], guarantee, releases, each["against"]))
        return cls(
            data["server_sees"],
            tuple(protections),
            data["rounds"],
            data["smallest_cohort"],
            data["dropouts"],
            data["colluding"],
            tuple(data["in_clear"]),
            data.get("trusted"),
            data.get("released", cls.released),
        )


def _times(releases: Sequence[Release]) -> str:
    count = sum(release.count for release in releases)
    runs = all(isinstance(release.mechanism, TreeAggregation | MatrixFactorized) for release in releases)
    often = "once" if count == 1 else f"{count} times"
    return f"{often}, with noise for a run as a whole" if runs else often


def _number(epsilon: float) -> str:
    return f"{epsilon:.4g}" if math.isfinite(epsilon) else "∞"


def _sampled(release: Release) -> str:
    sampling = release.sampling
    if isinstance(sampling, Poisson):
        return f"in each release a unit takes part with probability {sampling.rate:.4g}, by a coin of its own"
    if isinstance(sampling, FixedSize):
        return (
            f"in each release {sampling.size} of {sampling.population} take part, drawn without replacement"
        )
    if isinstance(sampling, Everyone):
        return "each may have taken part in every release, so nothing is claimed from sampling"
    raise TypeError(type(sampling).__name__)
