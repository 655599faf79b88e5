"""The number of running calls of this process by domain, under leases of any origin."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

from forebay.contracts.identity import RequestDomain
from forebay.contracts.requests import RequestAdmissionLease


class RunningCalls:
    """Running calls beside those under held leases.

    Attributes:
        lost: domains of calls that may still run under a lost lease, by encoded id.
        deciding: domains of attempts that the server is deciding, by encoded id.
    """

    def __init__(self) -> None:
        self.lost: dict[str, RequestDomain] = {}
        self.deciding: dict[str, RequestDomain] = {}

    def count(self, held: Iterable[RequestAdmissionLease]) -> Mapping[RequestDomain, int]:
        """Return the number of calls in each domain; calls that may begin count as begun."""
        domains = [lease.item.resource.domain for lease in held]
        return Counter([*domains, *self.lost.values(), *self.deciding.values()])
