"""The records of a shard by name, as they stand in ``meta``, and changes of them by a test."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import redis

from forebay.coordinator.keys import ShardKeys
from forebay.coordinator.scripts.records import RECORD, Kind, parsed


def _kind(keys: ShardKeys) -> Kind:
    return "requests" if keys.tag.startswith("rq:") else "tasks"


def read_record(client: redis.Redis, keys: ShardKeys, field: str = RECORD) -> dict[str, str]:
    """Return the parts of a record by name; none if it is not written."""
    text = cast("bytes | None", client.hget(keys["meta"], field))
    return dict(parsed(text, _kind(keys), field))


def read_window(client: redis.Redis, keys: ShardKeys, domain: str = "chat") -> dict[str, str]:
    """Return the parts of a window by name; none of one that is not born."""
    return read_record(client, keys, f"window_{domain}")


def write_record(
    client: redis.Redis, keys: ShardKeys, changes: Mapping[str, Any], field: str = RECORD
) -> None:
    """Change parts of a record."""
    found = read_record(client, keys, field)
    assert set(changes) <= set(found), f"no such parts: {set(changes) - set(found)}"
    text = "|".join(str(value) for value in (found | dict(changes)).values())
    client.hset(keys["meta"], field, text)


def add_to_record(
    client: redis.Redis, keys: ShardKeys, name: str, amount: int, field: str = RECORD
) -> None:
    """Add to a number of a record."""
    before = int(read_record(client, keys, field)[name])
    write_record(client, keys, {name: before + amount}, field)


def make_overdue(client: redis.Redis, keys: ShardKeys, member_id: str) -> None:
    """Make a member's heartbeat overdue; the shard's next call finds out."""
    for kind in ("members", "checks"):
        assert client.zadd(keys[kind], {member_id: 1}, xx=True, ch=True) == 1
    write_record(client, keys, {"next_check_us": 0})


def read_settings(client: redis.Redis, keys: ShardKeys) -> dict[str, str]:
    """Return a request shard's settings by name."""
    text = cast("bytes", client.hget(keys["meta"], "settings") or b"").decode()
    return dict(part.split("=", 1) for part in text.split("|") if part)


def write_setting(client: redis.Redis, keys: ShardKeys, name: str, value: object) -> None:
    """Change one of a request shard's settings."""
    settings = read_settings(client, keys) | {name: str(value)}
    client.hset(
        keys["meta"], "settings", "|".join(f"{one}={settings[one]}" for one in sorted(settings))
    )
