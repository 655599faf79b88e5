"""What the keys of a request shard hold, read as they stand, and what must agree among them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, cast

import redis

from forebay.contracts.identity import RequestDomain
from forebay.coordinator.keys import ShardKeys
from forebay.coordinator.scripts.records import RECORD, parsed

WINDOW_FIELDS: Final = (
    "current_limit",
    "effective_max",
    "blocked_until_us",
    "success_streak",
    "cuts",
    "rate_limit_ceiling",
    "consecutive_rate_limits",
    "last_outcome",
)
WINDOW_FIELDS_OF_STEADY: Final = (
    "row",
    "soon_tries",
    "step",
    "top",
    "quiet_until_us",
    "served_at_refusal",
    "untold_from",
    "quota_until_us",
    "served_at_quota",
)
MINUTE_FIELDS: Final = ("periods", "budget", "opened_us", "served_at_opening", "used_up_at")
TRANSITIONS: Final = {
    "request_resource_registered": ("alias", "from", "cap", "member_id"),
    "request_setting_changed": ("setting", "from", "to", "alias", "member_id"),
    "request_override_cap_changed": ("from", "to"),
    "request_effective_cap_changed": ("from", "to"),
    "request_limit_increased": ("domain", "from", "to", "reason"),
    "request_limit_decreased": ("domain", "from", "to", "reason"),
    "request_window_reset": ("domain", "from", "to"),
    "request_cooldown_reset": ("domain", "left_us"),
    "request_rate_limited": ("domain", "blocked_until_us"),
    "request_soft_ceiling_recovered": ("domain",),
    "request_fully_recovered": ("domain",),
    "request_minute_budget_learned": ("domain", "budget", "reason"),
    "request_minute_budget_dropped": ("domain", "budget", "reason"),
    "request_queue_formed": ("domain",),
    "request_queue_drained": ("domain",),
    "request_lease_expired": ("lease_id", "member_id", "reason"),
    "request_release_diagnostic": ("domain", "lease_id", "code"),
}
"""The promised events of caps, settings, windows, queues and releases, with the fields they name;
a field that an event lacks counts as empty."""

Hash = Mapping[str, str]


def number(text: str) -> float:
    """Return a number as its value, whole or not."""
    return float(text) if "." in text or "e" in text else int(text)


def _text(flat: Mapping[bytes, bytes]) -> Hash:
    return {key.decode(): value.decode() for key, value in flat.items()}


def _pairs(members: list[tuple[bytes, float]]) -> dict[str, float]:
    return {member.decode(): score for member, score in members}


def read_keys(client: redis.Redis, keys: ShardKeys) -> dict[str, Any]:
    """Return every hash and sorted set of the shard by kind, and its records by name."""
    hashes = ("meta", "leases", "waiters", "groups")
    lines = tuple(f"line_{domain}" for domain in RequestDomain)
    named = ("aliases", "members", "checks", "suspects", "held", "fifo", "aside")
    sets = (*named, "deadlines", "holds", *lines)
    pipe = client.pipeline(transaction=False)
    for kind in hashes:
        pipe.hgetall(keys[kind])
    for kind in sets:
        pipe.zrange(keys[kind], 0, -1, withscores=True)
    values = pipe.execute()
    found: dict[str, Any] = {}
    for kind, value in zip((*hashes, *sets), values, strict=True):
        found[kind] = _text(value) if isinstance(value, dict) else _pairs(value)
    meta = found["meta"]
    for domain in RequestDomain:
        field = f"window_{domain}"
        found[f"domain_{domain}"] = parsed(meta.get(field), "requests", field)
    found["meta"] = parsed(meta.get(RECORD), "requests")
    return found


def _lease(packed: str) -> tuple[Any, ...]:
    member, domain, group, *rest = packed.split("|")
    return (member, domain, group, *map(int, rest[:4]))  # then its hold, and its cost if it has one


def _waiter(packed: str) -> tuple[Any, ...]:
    member, domain, group, _arrival, deadline, *_cost = packed.split("|")
    return (member, domain, group, int(deadline) if deadline else None)


def _group(packed: str) -> tuple[Any, ...]:
    weight, tag, _place, waiting, *_ = packed.split("|")
    return (float(weight), float(tag) if tag else None, int(waiting))


def _window(stored: Hash) -> dict[str, Any]:
    window: dict[str, Any] = {
        name: number(stored.get(name, "0"))
        for name in (*WINDOW_FIELDS, *WINDOW_FIELDS_OF_STEADY, *MINUTE_FIELDS)
        if name != "last_outcome"
    }
    window["last_outcome"] = stored.get("last_outcome", "")
    if number(stored.get("ramp_us", "0")) > 0:
        window["current_limit"] = None  # a function of time while it climbs
    return window


def observable(found: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the design speaks of: windows, leases, waiters, members, caps, groups, V."""
    meta = found["meta"]
    return {
        "static_cap": number(meta.get("static_cap", "0")),
        "in_flight": number(meta.get("in_flight", "0")),
        "virtual_time": float(meta.get("virtual_time", "0")),
        "windows": {
            domain.value: _window(found[f"domain_{domain}"])
            | {
                "in_flight": number(found[f"domain_{domain}"].get("in_flight", "0")),
                "waiters": number(found[f"domain_{domain}"].get("waiters", "0")),
            }
            for domain in RequestDomain
            if found[f"domain_{domain}"]
        },
        "leases": {name: _lease(packed) for name, packed in found["leases"].items()},
        "waiters": {name: _waiter(packed) for name, packed in found["waiters"].items()},
        "members": {name: int(expiry) for name, expiry in found["members"].items()},
        "checks": {name: int(at) for name, at in found["checks"].items()},
        "suspects": {name: int(since) for name, since in found["suspects"].items() if since},
        "caps": {name.replace("\0", "/"): int(cap) for name, cap in found["aliases"].items()},
        "groups": {name: _group(packed) for name, packed in found["groups"].items()},
    }


def stored_limits(found: Mapping[str, Any]) -> dict[str, int]:
    """Return the limit of each window as it is written down, climbing or not.

    The steps of a return are told together: until then it is the limit from which it began.
    """
    windows = {domain.value: found[f"domain_{domain}"] for domain in RequestDomain}
    return {
        name: int(stored.get("untold_from", "0")) or int(stored["current_limit"])
        for name, stored in windows.items()
        if stored
    }


def audit(found: Mapping[str, Any]) -> None:
    """Check that every index says what leases and waiters say (design 01, *Invariants* 3 and 4)."""
    state = observable(found)
    leases, waiters = state["leases"], state["waiters"]
    assert state["in_flight"] == len(leases), f"in_flight {state['in_flight']}, leases {leases}"
    assert number(found["meta"].get("waiters", "0")) == len(waiters)
    for domain, window in state["windows"].items():
        assert window["in_flight"] == sum(lease[1] == domain for lease in leases.values())
        assert window["waiters"] == sum(waiter[1] == domain for waiter in waiters.values())
    held = {f"{lease[0]}\0lease\0{name}" for name, lease in leases.items()}
    held |= {f"{waiter[0]}\0waiter\0{name}" for name, waiter in waiters.items()}
    held |= {alias.replace("\0", "\0alias\0") for alias in found["aliases"]}
    found_held = {"\0".join(entry.split("\0")[:3]) for entry in found["held"]}  # then a filling
    assert found_held == held, f"held {found_held ^ held} differs"
    members = set(found["members"])
    assert {entry.split("\0")[0] for entry in held} <= members
    assert set(found["holds"]) <= set(leases)
    deadlines = {name: waiter[3] for name, waiter in waiters.items() if waiter[3] is not None}
    assert {name: int(at) for name, at in found["deadlines"].items()} == deadlines
    assert set(found["checks"]) == members
    assert set(found["suspects"]) <= members
    assert int(found["meta"].get("suspects", "0")) == len(found["suspects"])
    aside = {entry.split("\0")[1]: entry.split("\0")[0] for entry in found["aside"]}
    assert all(waiters[name][0] == member for name, member in aside.items())
    assert set(aside.values()) <= set(found["suspects"])
    waiters = {name: waiter for name, waiter in waiters.items() if name not in aside}
    assert sorted(entry.split("\0")[3] for entry in found["fifo"]) == sorted(waiters)
    for domain in RequestDomain:
        line = {entry.split("\0")[1]: tag for entry, tag in found[f"line_{domain}"].items()}
        waiting = {waiter[2] for waiter in waiters.values() if waiter[1] == domain}
        assert line == {name: state["groups"][name][1] for name in waiting}
    for name, (_weight, _tag, waiting_count) in state["groups"].items():
        assert waiting_count == sum(waiter[2] == name for waiter in waiters.values())


def audited(client: redis.Redis, keys: ShardKeys) -> dict[str, Any]:
    """Return the observable state after checking that it agrees with itself."""
    found = read_keys(client, keys)
    audit(found)
    return observable(found)


def events(
    client: redis.Redis, keys: ShardKeys, after: str = "-"
) -> list[tuple[str, Mapping[str, str]]]:
    """Return the shard's events after an entry, each with its entry's name."""
    entries = cast("list[tuple[bytes, dict[bytes, bytes]]]", client.xrange(keys["events"], after))
    return [(name.decode(), _text(raw)) for name, raw in entries]


def transitions(
    client: redis.Redis, keys: ShardKeys, after: str = "-"
) -> tuple[list[tuple[str, ...]], str]:
    """Return the promised events after an entry, and where to go on.

    Each event is its time, its kind and the fields that the design names.
    """
    promised = []
    for name, fields in events(client, keys, after):
        after = f"({name}"
        if wanted := TRANSITIONS.get(fields["kind"]):
            said = (fields.get(key, "") for key in wanted)
            promised.append((fields["at_us"], fields["kind"], *said))
    return promised, after
