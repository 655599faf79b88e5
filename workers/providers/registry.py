"""All profiles, and the one way to find the facts of a host (docs/providers.md is made from them).

A host without a profile gets `GENERIC`, the union of all profiles. The profile of a known host
holds its own facts first and then those of `GENERIC`, so that what nobody has read of a provider is
read as at the others.
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
    ProviderProfile,
    Refusals,
    Source,
    Streams,
    Usage,
    Waits,
)

ENTRY_POINTS: Final = "forebay.providers"
"""Group of the entry points by which a program adds profiles: each names a `ProviderProfile`."""

BUILT_IN: Final = (
    openai.PROFILE,
    azure.PROFILE,
    anthropic.PROFILE,
    bedrock.PROFILE,
    vertex.PROFILE,
    gemini.PROFILE,
    mistral.PROFILE,
    cohere.PROFILE,
    groq.PROFILE,
    together.PROFILE,
    openrouter.PROFILE,
    deepseek.PROFILE,
    vllm.PROFILE,
    tgi.PROFILE,
    ollama.PROFILE,
)

log = Logger("forebay.providers")

_CACHED: Final = 1024


class Call(NamedTuple):
    """The facts of a call by its method and path.

    Attributes:
        domain: its window's domain; None for a call that needs no lease.
        model: the model's id where the path names it.
    """

    domain: RequestDomain | None
    model: str | None


class PreparedProfile:
    """A provider's facts, made ready to be read at each call.

    Attributes:
        name: the provider's, "" for `GENERIC`.
        named_by_host: see `ProviderProfile`.
        body, usage, refusals, waits, streams: its own facts, then those of all profiles.
        known_codes: codes of errors that mean something, in lower case.
        periods: of the budgets that headers tell, by unit, where a fact says so.
    """

    def __init__(self, provider: ProviderProfile, common: ProviderProfile) -> None:
        self.name = provider.name
        self.named_by_host = provider.named_by_host
        self.body: Body = _joined(provider.body, common.body)
        self.usage: Usage = _joined(provider.usage, common.usage)
        self.refusals: Refusals = _joined(provider.refusals, common.refusals)
        self.known_codes = self.refusals.overload | self.refusals.account | self.refusals.request
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
@lru_cache(_CACHED)
def host_name(host: str) -> str:
    """Return a host as windows are named by it, however a URL writes it.

    That is in lower case, without the dot that ends an absolute name, and without the port where a
    profile knows the host by its name alone: other ports of it are other ways to the same limits.
    """
    name, _, port = host.lower().rpartition(":")
    if not name or ":" in name or not port.isdigit():  # no port, or an IPv6 address
        return host.lower().rstrip(".")
    name = name.rstrip(".")
    return name if _known_as(name) is not None else f"{name}:{port}"


@lru_cache(_CACHED)
def profile_of_host(host: str) -> PreparedProfile | None:
    """Return the profile of a host as written in a URL, None for an unknown one."""
    return _known_as(host_name(host))


def _known_as(name: str) -> PreparedProfile | None:
    for profile, patterns in _prepared():
        if any(pattern.fullmatch(name) for pattern in patterns):
            return profile
    return None


def profile_of_url(url: object) -> PreparedProfile:
    """Return the profile of a URL's host, `GENERIC` where no profile names it or it is no URL."""
    try:
        host = "" if url is None else urlsplit(str(url)).netloc.rpartition("@")[2]
    except ValueError:
        host = ""
    return (profile_of_host(host) if host else None) or GENERIC


@lru_cache(_CACHED)
def profile_named(provider_name: str) -> PreparedProfile | None:
    """Return the profile of a provider's name in a key, None for an unknown one."""
    return next((profile for profile, _ in _prepared() if profile.name == provider_name), None)


def providers() -> list[ProviderProfile]:
    """Return the facts of all profiles, those of entry points before the built-in ones."""
    return [*_added(), *BUILT_IN]


@cache
def _prepared() -> list[tuple[PreparedProfile, list[re.Pattern[str]]]]:
    return [
        (PreparedProfile(one, _COMMON), [re.compile(_host_pattern(host)) for host in one.hosts])
        for one in providers()
    ]


def _host_pattern(host: str) -> str:
    return "[a-z0-9.-]+".join(re.escape(part) for part in host.split("*"))


@cache
def _added() -> list[ProviderProfile]:
    found = []
    for entry in importlib.metadata.entry_points(group=ENTRY_POINTS):
        try:
            profile = entry.load()
            if not isinstance(profile, ProviderProfile):
                expected = ProviderProfile.__qualname__
                raise TypeError(f"expected a {expected}, got {type(profile).__name__}")  # noqa: TRY301
            found.append(profile)
        except Exception as error:  # noqa: BLE001 - a foreign package; the others still work
            log.warning(
                "provider_profile_refused",
                entry_point=f"{entry.name} = {entry.value}",
                reason=f"{type(error).__qualname__}: {error}",
                remedy="let it name a forebay.workers.providers.facts.ProviderProfile",
            )
    return found


def _common(profiles: Iterable[ProviderProfile]) -> ProviderProfile:
    """Return what all profiles know, as one: of each part the union, verified facts alone."""
    profiles = list(profiles)
    calls = [
        one for profile in profiles for one in profile.endpoints if not one.path.startswith(".*")
    ]
    return ProviderProfile(
        name="",
        title="any other host",
        # Models' calls first: what is a note in one API may be a call in another.
        endpoints=tuple(sorted(calls, key=lambda one: one.domain is None)),
        **{name: _union(profiles, name, kind) for name, kind in _PARTS.items()},
    )


_PARTS: Final = {
    "body": Body,
    "usage": Usage,
    "refusals": Refusals,
    "waits": Waits,
    "streams": Streams,
}
_NOT_COMMON: Final[dict[str, dict[str, Any]]] = {
    "waits": {"resets": (), "day_ends": "", "budget_texts": ()},
    "refusals": {"overload_statuses": frozenset({429, 503, 529})},
}
"""Facts that hold at one provider alone: another's header of this name may mean something else."""
_OWN_PLACES: Final = frozenset({"errors", "interaction.errors"})
"""Places whose name is another's for something less: errors of parts of a good answer."""
_OWN_ALONE: Final = {"free_inputs"}
_EVERY_PROFILE: Final = Source("every profile", "")


def _union(profiles: Iterable[ProviderProfile], name: str, kind: type) -> Any:
    parts = [part for profile in profiles if (part := getattr(profile, name)) is not None]
    joined: Any = kind(source=UNVERIFIED)
    for part in parts:
        if part.source != UNVERIFIED:
            joined = _joined(joined, part)
    changes = {**_NOT_COMMON.get(name, {}), "source": _EVERY_PROFILE}
    if name == "refusals":
        changes["places"] = tuple(place for place in joined.places if place not in _OWN_PLACES)
    return replace(joined, **changes)


def _joined(own: Any, common: Any) -> Any:
    """Return a part of a profile with what another knows besides: its own facts come first."""
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
GENERIC: Final = PreparedProfile(_COMMON, _COMMON)
"""The profile of unknown hosts, and of answers without a known host."""
