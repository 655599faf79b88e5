"""When the parts of members may be used, after a server was found to be away (docs/adr/0024)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

LONGEST_PAUSE_SECONDS: Final = 1.0
"""Between two tries of any member to reach the server."""


@dataclass(frozen=True, slots=True)
class Absence:
    """A server's absence, as one member knows of it; times of one clock, in seconds.

    Attributes:
        since: when the member noticed it.
        ttl_seconds: of memberships.
        call_timeout_seconds: within which a call notices that the server is silent.
    """

    since: float
    ttl_seconds: float
    call_timeout_seconds: float

    @property
    def opens_at(self) -> float:
        """When parts are used: no lease of the server is held by any member any more."""
        return self.since + self.ttl_seconds

    def stay_seconds(self, back_at: float) -> float:
        """Return how long parts are kept to after the server's return.

        Others may not be back yet and use theirs: a try to reach the server may have begun while
        it was silent and last for a deadline, then comes a pause, then a try that works within a
        deadline. Nobody uses a part where the server was away for less than a TTL, and members
        notice that an interval and a deadline apart at most.
        """
        noticed_within = self.ttl_seconds / 3 + self.call_timeout_seconds
        if back_at - self.since + noticed_within < self.ttl_seconds:
            return 0.0
        return 2 * self.call_timeout_seconds + LONGEST_PAUSE_SECONDS
