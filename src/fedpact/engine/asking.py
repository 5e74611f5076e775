"""Asking all clients for statistics, in clear or under a mask, and noting what that releases."""

from dataclasses import dataclass, field
from functools import partial
from typing import Any

from fedpact.channel import TRANSFORMS
from fedpact.channel.channel import Channel
from fedpact.channel.mask import Mask
from fedpact.core.errors import ConfigError, DataError
from fedpact.core.seeds import Seed
from fedpact.engine.in_process import InProcess
from fedpact.engine.masked_sums import check_channel, hide_sums
from fedpact.engine.population import Population
from fedpact.engine.rounds import hold_to_end
from fedpact.engine.work import Rules, Setting
from fedpact.privacy.statement import Statement

# Every client answers every time: numbers of different rows would not go together.
_ALL = Rules(quorum=1.0, fatal=(DataError,))


@dataclass
class Asking:
    """Asks all clients for statistics, and notes what that releases and in how many rounds.

    Args:
        population: the clients.
        mask: what hides each client's part of a sum; None for nothing.
        rounds: how many were held so far.
        released: what they released, in phrases.
    """

    population: Population
    mask: Mask | None
    rounds: int = 0
    released: list[str] = field(default_factory=list)

    @property
    def clients(self) -> int:
        """How many clients there are."""
        return len(self.population.ids(0))

    def fitted(self, algorithm: Any, released: str) -> Any:
        """Return what an algorithm finds; nobody is asked where it has no column.

        Args:
            algorithm: an estimate.
            released: what that tells, in a phrase.

        Raises:
            DataError: a client's rows cannot be used.
            QuorumError: a client did not answer.
            SecureError: too few clients are there for a masked sum.
        """
        return algorithm.fitted(self.state(algorithm, released))

    def state(self, algorithm: Any, released: str) -> Any:
        """Return the last state of an algorithm, asked as by `fitted`."""
        seed = Seed.of(0).child("statistics", type(algorithm).__name__)
        setting = Setting(algorithm, None, self.population, Channel((), algorithm), _ALL, seed)
        hidden = None if self.mask is None else partial(hide_sums, self.mask)
        state = hold_to_end(InProcess(), setting, hidden=hidden)
        held = state.round - algorithm.init(None, seed).round
        if held:
            self.rounds += held
            self.released.append(released)
        return state

    def statement(self) -> Statement:
        """Return the privacy statement of all that was asked."""
        mask, clients = self.mask, self.clients
        return Statement(
            server_sees="each client's part of every sum, as it is" if mask is None else mask.seen(),
            protections=(),
            rounds=self.rounds,
            smallest_cohort=clients,
            dropouts=None if mask is None else 0,
            colluding=0 if mask is None else mask.colluding(clients),
            in_clear=tuple(self.released),
            trusted=None if mask is None else mask.trusted(),
            released="the sums that were released",
        )


def mask_of(channel: Any) -> Mask | None:
    """Return the mask of a channel for statistics, given as stages or as a job has them; None where it is empty.

    Raises:
        ChannelError: a stage does something else than mask.
        ConfigError: it is no stage.
    """
    stages = channel if isinstance(channel, list | tuple) else [] if channel is None else [channel]
    built = [TRANSFORMS.build(stage) if isinstance(stage, str | dict) else stage for stage in stages]
    for stage in built:
        if isinstance(stage, type) or not hasattr(stage, "kind"):
            raise ConfigError(f"{stage!r} is no stage of a channel; give one such as fp.SecureSum().")
    return check_channel(built)
