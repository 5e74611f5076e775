"""One client between the rounds of secure sums: who it is, whom it knows, and what it remembers."""

from fedpact.core.errors import SecureError
from fedpact.secure.keys import Identity, KeyPair, Roster, Secret, Verify, verify
from fedpact.secure.messages import Invitation, Keys

_REMEMBERED_SECRETS = 256


class Member(Secret):
    """A client of a session of secure sums.

    It has one channel key for the session, which seals shares and is never opened, so that two clients agree on a
    secret once and derive the keys of each round from it. The key that masks are made of is another one in each
    round: where a client drops out it is put together by the server, and one that had been used before would then
    open what that client sent before.

    Args:
        client: its name.
        identity: its signing key.
        roster: who may take part, as this client was told by its owners.
        session: the run that it takes part in, 32 bytes.
        minimum_cohort: the smallest cohort that it takes part in, whatever the server says.
        last_round: the last round it took part in, −1 for none; its owner keeps it over restarts, from before the
            answer to an invitation is sent.
        verify: checks a signature: `keys.verify`, or one that remembers its results.

    Raises:
        SecureError: the roster has another key for it.
    """

    def __init__(
        self,
        client: str,
        identity: Identity,
        roster: Roster,
        session: bytes,
        minimum_cohort: int = 5,
        last_round: int = -1,
        verify: Verify = verify,
    ) -> None:
        if roster.key(client) != identity.public:
            raise SecureError(
                f'the roster has another key for "{client}" than its own; ask for the right roster.'
            )
        self.client = client
        self.identity = identity
        self.roster = roster
        self.session = session
        self.minimum_cohort = minimum_cohort
        self.last_round = last_round
        self.verify = verify
        self.channel = KeyPair()
        self._secrets: dict[bytes, bytes] = {}

    def enter(self, invitation: Invitation) -> None:
        """Begin the round of an invitation; it and all before it are then refused.

        Raises:
            SecureError: it is of another session or not later than the last round, this client is not in its cohort, or
                the cohort may be smaller than this client wants.
        """
        if invitation.session != self.session:
            raise SecureError("this is an invitation to a session that this client is not in.")
        if invitation.round <= self.last_round:
            raise SecureError(
                f"this is an invitation to round {invitation.round}, and this client has been in round "
                f"{self.last_round}; rounds only go up, for one twice would show the difference of two vectors."
            )
        if self.client not in invitation.cohort:
            raise SecureError(f'"{self.client}" is not in the cohort that it was invited with.')
        if invitation.parameters.minimum_cohort < self.minimum_cohort:
            raise SecureError(
                f'"{self.client}" takes part in sums of {self.minimum_cohort} clients or more; this one may be of '
                f"{invitation.parameters.minimum_cohort}."
            )
        self.last_round = invitation.round

    def channel_secret(self, keys: Keys) -> bytes:
        """Return the secret of the channel with the owner of these keys.

        Raises:
            SecureError: the key is of a small group.
        """
        known = self._secrets.get(keys.channel)
        if known is None:
            known = self.channel.agree(keys.channel, keys.client)
            if len(self._secrets) >= _REMEMBERED_SECRETS:
                del self._secrets[next(iter(self._secrets))]
            self._secrets[keys.channel] = known
        return known
