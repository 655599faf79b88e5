"""What the reference model says of a shard, in the shape that ``tests.support_state`` reads."""

from __future__ import annotations

import math
from typing import Any

import redis

from forebay.contracts.identity import RequestDomain
from forebay.coordinator.keys import ShardKeys
from tests.property import window_minute_model as minute
from tests.property.request_model import RequestModel
from tests.property.window_state_model import WindowState
from tests.support_state import MINUTE_FIELDS, WINDOW_FIELDS_OF_STEADY, events


def in_order(notices: dict[str, list[list[Any]]]) -> dict[str, list[list[Any]]]:
    """Grants in their order, then the rest, whose order the design leaves open.

    Left out is that an operator set something: test_request_damage_rules says who is told.
    """
    kept = {member: [one for one in told if one != ["set"]] for member, told in notices.items()}
    return {
        member: [notice for notice in told if notice[0] == "granted"]
        + sorted(notice for notice in told if notice[0] != "granted")
        for member, told in kept.items()
        if told
    }


def subject(event: tuple[str, ...]) -> tuple[str, ...]:
    """Whom an event is about: the order of events is promised for each domain or lease alone."""
    _at, kind, *fields = event
    return ("cap",) if kind == "request_effective_cap_changed" else ("of", fields[0])


def without_time(said: list[tuple[str, ...]]) -> list[tuple[str, ...]]:
    """Leave out what time alone does to a window: it is told when a call happens to see it.

    Those are the steps of ramps, and budgets by the minute that expired unused.
    """
    return [event for event in said if event[-1] not in {"ramp", "unused"}]


def let_minutes_pass(windows: dict[str, dict[str, Any]], model: RequestModel) -> None:
    """Bring minutes to the present: what passed is written down when a call looks at a window."""
    for domain, window in model.windows.items():
        found = windows[domain.value]
        state = WindowState(effective_max=1, limit=1, served=window.served)
        for name in MINUTE_FIELDS:
            setattr(state, name, found[name])
        in_a_row = found["consecutive_rate_limits"]
        minute.pass_time(state, found["in_flight"], model.now_us, in_a_row)
        found.update((name, getattr(state, name)) for name in MINUTE_FIELDS)


def follow_limits(
    limits: dict[str, int], said: list[tuple[str, ...]], model: RequestModel
) -> dict[str, int]:
    """Return each window's limit as the events tell it, from where they told it last.

    No event may begin elsewhere than the one before ended, and what is told last is the truth.
    """
    told = dict(limits)
    for _at, kind, domain, *rest in said:
        if kind in {"request_limit_increased", "request_limit_decreased"}:
            before, after = int(rest[0]), int(rest[1])
            assert told.get(domain, before) == before
            assert (after > before) == (kind == "request_limit_increased")
            told[domain] = after
    for domain in RequestDomain:
        if told.get(domain) != limits.get(domain):
            window = model.windows[domain]
            assert told[domain] == (window.untold_from or window.limit_at(model.now_us))
    return told


def expected_state(model: RequestModel) -> dict[str, Any]:
    return {
        "static_cap": model.static_cap,
        "in_flight": model.in_flight(),
        "virtual_time": model.queue.virtual_time,
        "windows": {
            domain.value: {
                "current_limit": window.limit_at(model.now_us),
                "effective_max": window.effective_max,
                "blocked_until_us": window.blocked_until_us,
                "success_streak": window.credit,
                "cuts": window.cuts,
                "rate_limit_ceiling": window.noted,
                "consecutive_rate_limits": window.consecutive,
                "last_outcome": window.last_outcome,
                **{name: getattr(window, name) for name in WINDOW_FIELDS_OF_STEADY},
                **{name: getattr(window, name) for name in MINUTE_FIELDS},
                "in_flight": model.in_flight(domain),
                "waiters": len(model.queue.waiting(domain)),
            }
            for domain, window in model.windows.items()
        },
        "leases": {
            name: (lease.member, lease.domain, lease.group, *lease.terms)
            for name, lease in model.leases.items()
        },
        "waiters": {
            name: (
                waiter.member,
                waiter.domain,
                waiter.group,
                None if waiter.deadline_us == math.inf else waiter.deadline_us,
            )
            for name, waiter in model.queue.waiters.items()
        },
        "members": model.members,
        "checks": model.listeners.look_at_us,
        "suspects": model.listeners.suspects,
        "caps": {f"{member}/{alias}": cap for (member, alias), cap in model.caps.items()},
        "groups": {
            name: (
                group.weight,
                model.queue.tag_of(name, model.now_us),
                model.queue.waiting_of(name),
            )
            for name, group in model.queue.groups.items()
            if model.queue.tag_of(name, model.now_us) is not None
        },
    }


def expected_budgets(model: RequestModel) -> list[dict[str, Any]]:
    """Return the list ``budgets`` of a snapshot, with levels as of now."""
    now_us = model.read_clock()
    return [
        {
            "budget": bucket.budget.value,
            "limit": bucket.limit,
            "burst": bucket.burst,
            "level": bucket.level_at(now_us),
            "registered": bucket.registered or 0,
            "learned": bucket.learned or 0,
        }
        for bucket in model.quotas.in_force()
    ]


def corrections(client: redis.Redis, keys: ShardKeys, after: str) -> list[tuple[str, ...]]:
    """Return the events of corrected quotas after an entry: time, budget, limit in force."""
    told = [fields for _name, fields in events(client, keys, after)]
    return [
        (fields["at_us"], fields["budget"], fields["limit"])
        for fields in told
        if fields["kind"] == "quota_adjusted"
    ]
