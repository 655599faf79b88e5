"""Risks that a server loses data, read from its INFO, which needs no CONFIG rights."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from forebay.coordinator.logs import Logger
from forebay.coordinator.server.address import ServerAddress

SECTIONS: Final = ("server", "memory", "persistence", "replication")
"""The sections of INFO that are read, in one command (Redis 7.0 and newer)."""

log = Logger("forebay.server")


@dataclass(frozen=True, slots=True, kw_only=True)
class Risk:
    """One way in which a server may lose leases, waiters and windows.

    Attributes:
        event: name of the log line.
        fault: what the server says of itself.
        remedy: what to set, and where.
    """

    event: str
    fault: str
    remedy: str


def eviction_risk(info: Mapping[str, Any]) -> Risk | None:
    """Return that the server may evict keys, where its INFO says so."""
    policy = info.get("maxmemory_policy", "noeviction")  # some hosts hide it
    if policy == "noeviction":
        return None
    return Risk(
        event="server_may_evict_keys",
        fault=f"maxmemory-policy is {policy}, so a server that is full drops leases and windows",
        remedy="set maxmemory-policy to noeviction; a server that is full then refuses new work",
    )


def persistence_risk(info: Mapping[str, Any]) -> Risk | None:
    """Return the risk that no data survives a restart, where INFO shows it.

    INFO does not say when snapshots are due. So a server persists if it has an append-only file,
    has written or loaded a snapshot since it started, or has a replica.
    """
    signs = ("aof_enabled", "rdb_saves", "rdb_last_load_keys_loaded", "connected_slaves")
    if "aof_enabled" not in info or any(info.get(sign) for sign in signs):
        return None
    return Risk(
        event="server_persists_nothing",
        fault="it has no append-only file and no replica, and has written no snapshot since it"
        " started, so a restart loses leases, tasks and windows",
        remedy="set appendonly to yes",
    )


_told: Final[set[tuple[str, str]]] = set()
_telling: Final = threading.Lock()  # a process may have several event loops


def warn_of_risks(info: Mapping[str, Any], address: ServerAddress) -> None:
    """Log each risk of a server as a warning, once in this process.

    Args:
        info: its `SECTIONS`, as redis-py parses them.
        address: the server.
    """
    for risk in filter(None, (eviction_risk(info), persistence_risk(info))):
        told = (str(address), risk.event)
        with _telling:
            if told in _told:
                continue
            _told.add(told)
        log.warning(risk.event, server=str(address), fault=risk.fault, remedy=risk.remedy)
