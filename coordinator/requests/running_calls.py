"""How many calls of this process run in each domain, whoever gave their leases."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

from forebay.contracts.identity import RequestDomain
from forebay.contracts.requests import RequestAdmissionLease


class RunningCalls:
    """Calls beside those under leases that are held.

    Attributes:
        lost: domains of calls that may still run under a lost lease, by encoded id.
        deciding: domains of attempts that the server is deciding, by encoded id.
    """

    def __init__(self) -> None:
        self.lost: dict[str, RequestDomain] = {}
        self.deciding: dict[str, RequestDomain] = {}

    def count(self, held: Iterable[RequestAdmissionLease]) -> Mapping[RequestDomain, int]:
        """Return the number of calls in each domain; those that may begin count as begun."""
        domains = [lease.item.resource.domain for lease in held]
        return Counter([*domains, *self.lost.values(), *self.deciding.values()])
