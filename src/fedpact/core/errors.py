"""Every error that Fedpact raises for a user, and the exit code that the command line gives it."""

from collections.abc import Iterable, Mapping
from difflib import get_close_matches


class FedpactError(Exception):
    """Base of all Fedpact errors: a sentence that says what was wrong, where, and what to do.

    Attributes:
        exit_code: what the command line exits with when this error ends it.
    """

    exit_code = 1


class ConfigError(FedpactError):
    """A job, an option or an argument that cannot be carried out as written."""

    exit_code = 3


class DataError(FedpactError):
    """A client's rows that cannot be used: missing file, wrong dtype, NaN label, unseen class, no rows."""

    exit_code = 4


class ModelError(FedpactError):
    """A model that does not fit its data, its file, or the algorithm that is to train it."""

    exit_code = 5


class ChannelError(FedpactError):
    """A channel whose stages cannot be combined as written."""

    exit_code = 6


class UpdateError(FedpactError):
    """An update refused at the door: NaN, Inf, out of the declared range, wrong layout or version."""

    exit_code = 7


class ClientError(FedpactError):
    """A client that failed while it computed its update."""

    exit_code = 8


class QuorumError(FedpactError):
    """A round with fewer answers than the job's quorum.

    Args:
        message: the sentence.
        failures: client → why it did not answer.
    """

    exit_code = 9

    def __init__(self, message: str, failures: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.failures = dict(failures or {})


class CheckpointError(FedpactError):
    """A checkpoint that is corrupt, truncated, or of another job."""

    exit_code = 10


class DependencyError(FedpactError):
    """An optional library that the request needs and that is not installed."""

    exit_code = 11


class SecureError(FedpactError):
    """A secure sum given up: a key, a signature, a share or a request that cannot be right, or too few clients."""

    exit_code = 12


class PrivacyError(FedpactError):
    """A privacy budget that would be exceeded, or a ledger that cannot vouch for what was spent."""

    exit_code = 13


def suggest(name: str, options: Iterable[str]) -> str:
    """Return ' Did you mean "..."?' for the option nearest to a misspelt name, or '' when none is near.

    >>> suggest("leaning_rate", ["learning_rate", "rounds"])
    ' Did you mean "learning_rate"?'
    >>> suggest("x", ["learning_rate"])
    ''
    """
    by_folded = {option.casefold(): option for option in options}
    found = get_close_matches(name.casefold(), by_folded, n=1, cutoff=0.6)
    return f' Did you mean "{by_folded[found[0]]}"?' if found else ""
