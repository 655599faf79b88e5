"""The examination of a server that `forebay doctor` makes, read-only and with a member's rights."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from redis.exceptions import NoPermissionError, RedisError

from forebay.coordinator.scripts.composing import FUNCTIONS, script
from forebay.coordinator.scripts.operator_library import LIBRARY, ask_text
from forebay.coordinator.server.address import ServerAddress, TcpAddress
from forebay.coordinator.server.condition import SECTIONS, Risk, eviction_risk, persistence_risk
from forebay.coordinator.server.libraries import codes_of
from forebay.coordinator.server.refusals import connection_error
from forebay.coordinator.server.rights import RIGHTS, Right, lacking
from forebay.coordinator.server.version import parse_server_version

NEARLY_FULL: Final = 0.9
"""The part of maxmemory from which on a server counts as nearly full."""

CLOCK_DIFFERENCE_SECONDS: Final = 2.0
"""A larger difference of clocks is reported as wrong."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One result of the examination of a server.

    Attributes:
        name: of the thing, one word.
        state: ``ok``, ``wrong``, or ``hidden`` where the server does not tell.
        said: what was found.
        remedy: what to do about it; empty unless it is wrong.
    """

    name: str
    state: Literal["ok", "wrong", "hidden"]
    said: str
    remedy: str = ""


async def examine(
    client: Any, address: ServerAddress, *, timeout_seconds: float = 5.0
) -> list[Check]:
    """Look at a server: INFO, TIME, FUNCTION LIST, and commands on keys that do not exist.

    Args:
        client: asyncio's, of the server.
        address: the server.
        timeout_seconds: bound of the whole.

    Raises:
        CoordinatorUnavailable: it does not answer.
        ConfigurationError: it forbids INFO or TIME.
    """
    try:
        async with asyncio.timeout(timeout_seconds):
            info = await client.info(*SECTIONS)
            asked_at = time.time()
            seconds, microseconds = await client.time()
            answered_at = time.time()
            try:
                codes = codes_of(await client.function_list(library="forebay_*", withcode=True))
            except NoPermissionError:
                codes = None
            lacks = await lacking(client)
            members = await _member_checks(client)
    except (RedisError, OSError) as error:
        raise connection_error(error, address, "examining it") from error
    ahead_seconds = seconds + microseconds / 1e6 - (asked_at + answered_at) / 2
    return [
        *checks_of_info(info, address),
        clock_check(ahead_seconds, answered_at - asked_at),
        libraries_check(codes),
        rights_check(lacks),
        *members,
    ]


def checks_of_info(info: Mapping[str, Any], address: ServerAddress) -> Iterator[Check]:
    """Yield the checks of the `SECTIONS` of a server's INFO."""
    days, rest = divmod(int(info.get("uptime_in_seconds", 0)), 86_400)
    hours, minutes = rest // 3600, rest % 3600 // 60
    up = f"{days} d {hours} h" if days else f"{hours} h {minutes} min"
    yield Check(name="version", state="ok", said=f"{parse_server_version(info)}, up {up}")
    yield _encryption_check(address)
    yield _role_check(info)
    yield _policy_check(info)
    yield _persistence_check(info)
    yield _memory_check(info)


def clock_check(ahead_seconds: float, round_trip_seconds: float) -> Check:
    """Judge how far the server's clock is ahead of this machine's; behind is negative."""
    direction = "ahead of" if ahead_seconds > 0 else "behind"
    said = (
        f"{abs(ahead_seconds):.3f} s {direction} this machine's,"
        f" round trip {round_trip_seconds * 1000:.1f} ms"
    )
    if abs(ahead_seconds) - round_trip_seconds <= CLOCK_DIFFERENCE_SECONDS:
        return Check(name="clock", state="ok", said=said)
    return Check(
        name="clock",
        state="wrong",
        said=said,
        remedy="set both by NTP: leases follow the server's clock, but a provider's hint that is a"
        " date is read by this machine's",
    )


def libraries_check(codes: Mapping[str, str] | None) -> Check:
    """Judge the function libraries of Forebay on a server: name and code, None where hidden."""
    name = "libraries"
    if codes is None:
        return Check(name=name, state="hidden", said="this user may not call FUNCTION LIST")
    own = [script(entry) for entry in FUNCTIONS]
    replaced = [one.name for one in own if codes.get(one.function, one.library) != one.library]
    if replaced:
        return Check(
            name=name,
            state="wrong",
            said=f"other code has the name of {', '.join(replaced)}",
            remedy="see who may call FUNCTION LOAD; then FUNCTION DELETE "
            + " ".join(one.function for one in own if one.name in replaced),
        )
    loaded = sum(one.function in codes for one in own)
    others = len(codes.keys() - {one.function for one in own} - {LIBRARY})
    said = f"{loaded} of this version's {len(own)} loaded (members load what they need)"
    return Check(
        name=name, state="ok", said=said + (f", {others} of other versions" if others else "")
    )


async def _member_checks(client: Any) -> list[Check]:
    """Return the checks of members' versions and settings, which should be equal."""
    try:
        reply = await client.eval_ro(ask_text(), 0, "doctor_members")
    except NoPermissionError:
        return [Check(name="members", state="hidden", said="this user may not call EVAL_RO")]
    return [
        Check(name=name, state=state, said=said, remedy=remedy if state == "wrong" else "")
        for state, name, said, remedy in json.loads(reply)
    ]


def rights_check(lacks: Mapping[str, Sequence[Right]]) -> Check:
    """Check this user's rights; `wrong` where it may write and lacks a right of a member.

    Args:
        lacks: the rights that it lacks, for each part of Forebay (`RIGHTS`).
    """
    may = [_MAY[part] for part, rights in lacks.items() if not rights]
    said = f"this user may {', '.join(may) or 'nothing'}"
    for part in ("requests", "pools"):
        if lacks[part]:
            said += f"; not {', '.join(right.what for right in lacks[part])}"
    missing = lacks["requests"]
    if missing and RIGHTS["requests"][0] not in missing:
        remedy = f"grant it {' '.join(right.rule for right in missing)}; see forebay acl"
        return Check(name="acl", state="wrong", said=said, remedy=remedy)
    return Check(name="acl", state="ok", said=said)


_MAY: Final = {
    "look": "look",
    "requests": "take part in requests",
    "pools": "take part in pools",
    "administration": "operate",
}


def _encryption_check(address: ServerAddress) -> Check:
    name = "tls"
    if not isinstance(address, TcpAddress) or address.tls is None:
        return Check(name=name, state="ok", said="not used")
    verified = {
        "certificate_and_host": "certificate and host name are verified",
        "certificate": "the certificate is verified, the host name is not",
    }
    if said := verified.get(address.tls.verifies):
        return Check(name=name, state="ok", said=said)
    return Check(
        name=name,
        state="wrong",
        said="nothing is verified, so anybody on the way may be the server",
        remedy="name the authority of its certificate: ?ssl_ca_certs=/path/ca.pem",
    )


def _role_check(info: Mapping[str, Any]) -> Check:
    role = info.get("role")
    if role == "master":
        replicas = info.get("connected_slaves", 0)
        return Check(name="role", state="ok", said=f"primary with {replicas} replicas")
    if role is None:
        return Check(name="role", state="hidden", said="INFO has no role")
    primary = f"{info.get('master_host', '?')}:{info.get('master_port', '?')}"
    return Check(
        name="role",
        state="wrong",
        said=f"replica of {primary}, which takes no writes",
        remedy="give the URL of the primary",
    )


def _policy_check(info: Mapping[str, Any]) -> Check:
    if "maxmemory_policy" not in info:
        return Check(name="policy", state="hidden", said="INFO has no maxmemory_policy")
    risk = eviction_risk(info)
    return _wrong("policy", risk) if risk else Check(name="policy", state="ok", said="noeviction")


def _persistence_check(info: Mapping[str, Any]) -> Check:
    name = "persistence"
    if "aof_enabled" not in info:
        return Check(name=name, state="hidden", said="INFO has no aof_enabled")
    failed = [
        what
        for field, what in (
            ("aof_last_write_status", "write of the append-only file"),
            ("rdb_last_bgsave_status", "snapshot"),
        )
        if info.get(field, "ok") != "ok"
    ]
    if failed:
        return Check(
            name=name,
            state="wrong",
            said=f"its last {' and its last '.join(failed)} failed, and it may refuse writes",
            remedy="see its log, and free its disk",
        )
    if risk := persistence_risk(info):
        return _wrong(name, risk)
    if info["aof_enabled"]:
        return Check(name=name, state="ok", said="append-only file")
    said = f"{info.get('rdb_saves', 0)} snapshots since it started, no append-only file"
    return Check(name=name, state="ok", said=said)


def _memory_check(info: Mapping[str, Any]) -> Check:
    used, most = int(info.get("used_memory", 0)), int(info.get("maxmemory", 0))
    said = f"{used / 1e6:.1f} MB used, " + (
        f"maxmemory {most / 1e6:.1f} MB" if most else "no bound"
    )
    if not most or used < NEARLY_FULL * most:
        return Check(name="memory", state="ok", said=said)
    return Check(
        name="memory",
        state="wrong",
        said=said,
        remedy="raise maxmemory, or free some: a full server refuses new work",
    )


def _wrong(name: str, risk: Risk) -> Check:
    return Check(name=name, state="wrong", said=risk.fault, remedy=risk.remedy)
