"""All peers, which of them are installed here, and how to install the others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, TypeVar

from bench.peers.arq_jobs import Arq
from bench.peers.bullmq_jobs import Bullmq
from bench.peers.fifo import BareFifo
from bench.peers.forebay_jobs import ForebayJobs
from bench.peers.forebay_leases import ForebayLeases
from bench.peers.job_library import JobLibrary
from bench.peers.limiter import LimiterPeer
from bench.peers.raw_pair import RawScripts
from bench.peers.saq_jobs import Saq
from bench.peers.self_limiters import SelfLimiters
from bench.peers.semaphore import InProcessSemaphore
from bench.peers.taskiq_jobs import Taskiq

PAIRS: Final[Sequence[LimiterPeer]] = (ForebayLeases(), RawScripts(), SelfLimiters())
"""Peers of the pair of acquire and release; Forebay first."""
HAND_OFFS: Final[Sequence[LimiterPeer]] = (
    ForebayLeases(),
    InProcessSemaphore(),
    BareFifo(),
    SelfLimiters(),
)
"""Peers of the hand-off; Forebay first."""
JOBS: Final[Sequence[JobLibrary]] = (
    ForebayJobs(),
    Arq(),
    Saq(),
    Taskiq(stores_results=False),
    Taskiq(stores_results=True),
    Bullmq(),
)
"""Peers of the no-op jobs; Forebay first."""

Peer = TypeVar("Peer", LimiterPeer, JobLibrary)


def installed(peers: Sequence[Peer]) -> dict[str, Peer]:
    """Return by name the peers that can be measured here."""
    return {peer.name: peer for peer in peers if peer.version() is not None}


def missing(peers: Sequence[Peer]) -> list[str]:
    """Return a sentence for each peer that cannot be measured here, with the remedy."""
    return [
        f"{peer.said} is not installed, so nothing is measured beside it; run make bench-peers"
        + (" (with node and npm on PATH)" if peer.name == Bullmq.name else "")
        for peer in peers
        if peer.version() is None
    ]


def versions() -> dict[str, str]:
    """Return the version of each peer, by name; ``not installed`` for a missing one."""
    found = {}
    everything: Sequence[LimiterPeer | JobLibrary] = (*PAIRS, *HAND_OFFS, *JOBS)
    for peer in everything:
        version = peer.version()
        if version != "":
            found[peer.name] = "not installed" if version is None else version
    return found
