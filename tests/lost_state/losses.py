"""Ways in which a server loses state: each a function of the server, by name."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Final

from forebay.coordinator.keys import REQUEST_KEYS, request_shard
from tests.lost_state.member import PROVIDER_MODEL
from tests.lost_state.server import LosingServer

KEYS: Final = request_shard(PROVIDER_MODEL)
FILLER: Final = "other-application:"
FILLER_BYTES: Final = 16_384
EVICTED: Final = 2
"""So many keys of the shard must go before the other application has written enough."""
MOST_FILLING_SECONDS: Final = 20.0
CUT_BYTES: Final = 7
"""So much of the next command stands at the end of a file whose last second is lost."""

Loss = Callable[[LosingServer], bool]
"""Loses state; returns whether there was something that has to come back."""


BOUNDED_MEMORIES: Final = ("events", "finished")
"""Keys that the next write makes anew: what they had is forgotten, as it is with time."""


def _delete(kind: str, server: LosingServer) -> bool:
    return bool(server.client.delete(KEYS[kind])) and kind not in BOUNDED_MEMORIES


def _garble(kind: str, server: LosingServer) -> bool:
    with server.client.pipeline(transaction=True) as pipe:
        pipe.delete(KEYS[kind]).set(KEYS[kind], "garbage", px=600_000)
        pipe.execute()
    return True


def _flush(word: str, server: LosingServer) -> bool:
    server.client.execute_command(word)
    return True


def _restart_empty(server: LosingServer) -> bool:
    server.kill()
    server.forget_data()
    server.start()
    return True


def _restart_on_old_snapshot(server: LosingServer) -> bool:
    """Restart on the RDB file that was written before the override was lowered."""
    server.kill()
    server.start()
    return True


def _lose_last_second(server: LosingServer) -> bool:
    server.begin_log()
    size = server.log_size()
    time.sleep(1.0)
    server.kill()
    server.truncate_log(size + CUT_BYTES)
    server.start("--appendonly", "yes")
    server.client.config_set("appendonly", "no")
    return True


def _evict(policy: str, server: LosingServer) -> bool:
    """Let another application write until the server has evicted keys of the shard.

    One key at random is looked at for each eviction, so that keys which are in use go, too.
    """
    client = server.client
    used = client.info("memory")["used_memory"]
    client.config_set("maxmemory-policy", policy)
    client.config_set("maxmemory-samples", 1)
    client.config_set("maxmemory", used + 64 * FILLER_BYTES)
    gone: set[str] = set()
    deadline = time.monotonic() + MOST_FILLING_SECONDS
    there = {key for key in KEYS.all if client.exists(key)}
    for number in _counted():
        client.set(f"{FILLER}{number % 512}", b"x" * FILLER_BYTES, ex=600)
        gone |= {key for key in there - gone if not client.exists(key)}
        if len(gone) >= EVICTED or time.monotonic() > deadline:
            break
    client.config_set("maxmemory", 0)
    for key in client.scan_iter(match=f"{FILLER}*", count=1000):
        client.unlink(key)
    return len(gone) >= EVICTED


def _counted() -> Iterator[int]:
    number = 0
    while True:
        yield number
        number += 1


WHOLE: Final[dict[str, Loss]] = {
    "FLUSHALL": partial(_flush, "FLUSHALL"),
    "FLUSHDB": partial(_flush, "FLUSHDB"),
    "restart without data": _restart_empty,
    "restart with AOF everysec, last second lost": _lose_last_second,
    "restart on an old RDB file": _restart_on_old_snapshot,
    "evictions, volatile-lru": partial(_evict, "volatile-lru"),
    "evictions, allkeys-lru": partial(_evict, "allkeys-lru"),
}
"""Losses of more than one key."""
OF_KEYS: Final[dict[str, Loss]] = {
    f"{kind} {word}": partial(lose, kind)
    for word, lose in (("deleted", _delete), ("garbled", _garble))
    for kind in REQUEST_KEYS
}
"""Losses of one key."""
NEEDS_SNAPSHOT: Final = "restart on an old RDB file"
