"""All rooms, and the one way to find the facts of a host (docs/providers.md is made from them).

A host that nobody knows gets `GENERIC`, which knows what all rooms know. A known host's room knows
its own facts first and then those of `GENERIC`, so that what nobody has read of a provider is read
as at the others.
"""

from __future__ import annotations

import importlib.metadata
import re
from collections.abc import Callable, Iterable
from dataclasses import fields, replace
from functools import cache, lru_cache
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit

from forebay.contracts.identity import RequestDomain
from forebay.coordinator.logs import Logger
from forebay.workers.providers import (
    anthropic,
    azure,
    bedrock,
    cohere,
    deepseek,
    gemini,
    groq,
    mistral,
    ollama,
    openai,
    openrouter,
    tgi,
    together,
    vertex,
    vllm,
)
from forebay.workers.providers.facts import (
    UNVERIFIED,
    Body,
    Endpoint,
    Form,
    Provider,
    Refusals,
    Source,
    Streams,
    Usage,
    Waits,
)

ENTRY_POINTS: Final = "forebay.providers"
"""Group of the entry points by which a program adds rooms: each names a `Provider`."""

BUILT_IN: Final = (
    openai.ROOM,
    azure.ROOM,
    anthropic.ROOM,
    bedrock.ROOM,
    vertex.ROOM,
    gemini.ROOM,
    mistral.ROOM,
    cohere.ROOM,
    groq.ROOM,
    together.ROOM,
    openrouter.ROOM,
    deepseek.ROOM,
    vllm.ROOM,
    tgi.ROOM,
    ollama.ROOM,
)

log = Logger("forebay.providers")

_CACHED: Final = 1024


class Call(NamedTuple):
    """What a method and a path say of a call.

    Attributes:
        domain: its window's domain; None for a call that needs no lease.
        model: the model's id where the path names it.
    """

    domain: RequestDomain | None
    model: str | None


class Room:
    """A provider's facts, made ready to be read at each call.

    Attributes:
        name: the provider's, "" for `GENERIC`.
        named_by_host: see `Provider`.
        body, usage, refusals, waits, streams: its own facts, then those of all rooms.
        periods: of the budgets that headers tell, by unit, where a fact says so.
    """

    def __init__(self, provider: Provider, common: Provider) -> None:
        self.name = provider.name
        self.named_by_host = provider.named_by_host
        self.body: Body = _joined(provider.body, common.body)
        self.usage: Usage = _joined(provider.usage, common.usage)
        self.refusals: Refusals = _joined(provider.refusals, common.refusals)
        waits: Waits = _joined(provider.waits, common.waits)
        # The most exact hint counts.
        hints = sorted(waits.headers, key=lambda hint: hint[1] is not Form.MILLISECONDS)
        self.waits = replace(waits, headers=tuple(hints))
        self.periods = {unit: period for unit, period, _, _ in waits.resets if period is not None}
        self.streams: Streams = _joined(provider.streams, common.streams)
        self.call_of: Callable[[str, str], Call | None] = lru_cache(_CACHED)(
            _Calls(provider.endpoints)
        )
        """Returns what a method and path say of a call, None for one that nobody knows."""


class _Calls:
    """Looks a method and path up in endpoints."""

    def __init__(self, endpoints: Iterable[Endpoint]) -> None:
        self._endpoints = [
            (one.method, re.compile(f"(?:{one.path})$"), one.domain) for one in endpoints
        ]

    def __call__(self, method: str, path: str) -> Call | None:
        path = path.rstrip("/")
        for wanted, pattern, domain in self._endpoints:
            found = pattern.search(path) if wanted in {"", method} else None
            if found is not None:
                return Call(domain, found.groupdict().get("model"))
        return None


@lru_cache(_CACHED)
def room_of_host(host: str) -> Room | None:
    """Return the room of a host as it stands in a URL, None for one that nobody knows."""
    host = host.lower()
    names = (host, host.partition(":")[0])
    for room, patterns in _rooms():
        if any(pattern.fullmatch(name) for pattern in patterns for name in names):
            return room
    return None


def room_of_url(url: object) -> Room:
    """Return the room of a URL's host, `GENERIC` for one that nobody knows and for what is none."""
    try:
        host = "" if url is None else urlsplit(str(url)).netloc.rpartition("@")[2]
    except ValueError:
        host = ""
    return (room_of_host(host) if host else None) or GENERIC


@lru_cache(_CACHED)
def room_named(provider_name: str) -> Room | None:
    """Return the room of a provider's name in a key, None for one that nobody knows."""
    return next((room for room, _ in _rooms() if room.name == provider_name), None)


def providers() -> list[Provider]:
    """Return the facts of all rooms, those of entry points before the built-in ones."""
    return [*_added(), *BUILT_IN]


@cache
def _rooms() -> list[tuple[Room, list[re.Pattern[str]]]]:
    return [
        (Room(one, _COMMON), [re.compile(_host_pattern(host)) for host in one.hosts])
        for one in providers()
    ]


def _host_pattern(host: str) -> str:
    return "[a-z0-9.-]+".join(re.escape(part) for part in host.split("*"))


@cache
def _added() -> list[Provider]:
    found = []
    for entry in importlib.metadata.entry_points(group=ENTRY_POINTS):
        try:
            room = entry.load()
            if not isinstance(room, Provider):
                raise TypeError(f"expected a {Provider.__qualname__}, got {type(room).__name__}")  # noqa: TRY301
            found.append(room)
        except Exception as error:  # noqa: BLE001 - a foreign package; the other rooms still work
            log.warning(
                "provider_room_refused",
                entry_point=f"{entry.name} = {entry.value}",
                reason=f"{type(error).__qualname__}: {error}",
                remedy="let it name a forebay.workers.providers.facts.Provider",
            )
    return found


def _common(rooms: Iterable[Provider]) -> Provider:
    """Return what all rooms know, as one: of each part the union, verified facts alone."""
    rooms = list(rooms)
    calls = [one for room in rooms for one in room.endpoints if not one.path.startswith(".*")]
    return Provider(
        name="",
        title="any other host",
        # Models' calls first: what is a note in one API may be a call in another.
        endpoints=tuple(sorted(calls, key=lambda one: one.domain is None)),
        **{name: _union(rooms, name, kind) for name, kind in _PARTS.items()},
    )


_PARTS: Final = {
    "body": Body,
    "usage": Usage,
    "refusals": Refusals,
    "waits": Waits,
    "streams": Streams,
}
_NOT_COMMON: Final = {"waits": {"resets": (), "day_ends": "", "budget_texts": ()}}
"""Facts that hold at one provider alone: another's header of this name may mean something else."""
_OWN_ALONE: Final = {"free_inputs"}
_EVERY_ROOM: Final = Source("every room", "")


def _union(rooms: Iterable[Provider], name: str, kind: type) -> Any:
    parts = [part for room in rooms if (part := getattr(room, name)) is not None]
    joined: Any = kind(source=UNVERIFIED)
    for part in parts:
        if part.source != UNVERIFIED:
            joined = _joined(joined, part)
    changes = {**_NOT_COMMON.get(name, {}), "source": _EVERY_ROOM}
    return replace(joined, **changes)


def _joined(own: Any, common: Any) -> Any:
    """Return a part of a room with what another knows besides: its own facts come first."""
    if own is None or common is None or own.source == UNVERIFIED:
        own, common = (common, None) if own is None or own.source == UNVERIFIED else (own, None)
    if common is None:
        return own
    changes: dict[str, Any] = {}
    for field in fields(own):
        mine, theirs = getattr(own, field.name), getattr(common, field.name)
        if isinstance(mine, frozenset):
            changes[field.name] = mine | theirs
        elif isinstance(mine, tuple) and field.name not in _OWN_ALONE:
            changes[field.name] = tuple(dict.fromkeys((*mine, *theirs)))
    return replace(own, **changes)


_COMMON: Final = _common(BUILT_IN)
GENERIC: Final = Room(_COMMON, _COMMON)
"""The room of every host that nobody knows, and of answers whose host is not known."""
