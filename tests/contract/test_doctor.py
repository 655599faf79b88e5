"""``forebay doctor``: what can be read of a server with a member's rights, and nothing changed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import redis
from click.testing import CliRunner, Result

from forebay.cli import cli
from forebay.commands.lines import WIDTH
from forebay.coordinator.scripts.composing import script
from forebay.coordinator.scripts.operator_library import LIBRARY
from forebay.coordinator.server.address import TcpAddress, TlsFiles, UnixAddress
from forebay.coordinator.server.connections import open_sync
from forebay.coordinator.server.embedded import EmbeddedServer
from forebay.coordinator.server.examination import checks_of_info, clock_check, libraries_check
from forebay.coordinator.server.rights import MEMBER_RULES
from forebay.coordinator.server.urls import parse_url
from tests.support_libraries import replace_library

UNIX = UnixAddress(path="/s")
WELL: dict[str, Any] = {
    "redis_version": "7.2.4",
    "uptime_in_seconds": 90_061,
    "role": "master",
    "connected_slaves": 1,
    "maxmemory_policy": "noeviction",
    "aof_enabled": 1,
    "used_memory": 50_000_000,
    "maxmemory": 100_000_000,
}


@pytest.fixture
def own_server() -> Iterator[EmbeddedServer]:
    with EmbeddedServer() as server:
        yield server


@pytest.fixture
def admin(own_server: EmbeddedServer) -> Iterator[redis.Redis]:
    with open_sync(parse_url(own_server.url)) as client:
        client.acl_setuser("member", enabled=True, passwords=["+pw"])
        client.execute_command("ACL", "SETUSER", "member", *MEMBER_RULES)
        yield client


def doctor(server: EmbeddedServer) -> Result:
    """Examine a server as a user with the rights of a member."""
    url = server.url.replace("unix://", "unix://member:pw@")
    return CliRunner().invoke(cli, ["doctor", "--url", url])


def test_json_has_a_row_for_each_check(own_server: EmbeddedServer, admin: redis.Redis) -> None:
    url = own_server.url.replace("unix://", "unix://member:pw@")
    shown = CliRunner().invoke(cli, ["doctor", "--json", "--url", url])
    rows = json.loads(shown.output)["rows"]
    lines = doctor(own_server)
    assert shown.exit_code == lines.exit_code
    assert {row["row"] for row in rows} == {"check"}
    for row in rows:
        assert state_of(lines, row["name"])[0] == row["state"]
        assert (row["remedy"] is None) == (row["state"] != "wrong")


def state_of(result: Result, name: str) -> tuple[str, str]:
    """Return how a check ended, and its line."""
    (line,) = [one for one in result.output.splitlines() if one.split()[1:2] == [name]]
    return line.split()[0], line


def test_a_server_that_is_well_has_nothing_wrong_and_is_left_as_it_was(
    own_server: EmbeddedServer, admin: redis.Redis
) -> None:
    before = admin.info("persistence")["rdb_changes_since_last_save"]
    result = doctor(own_server)
    assert result.exit_code == 0
    first_lines = [line for line in result.output.splitlines() if not line.startswith(" ")]
    found = {line.split()[1]: line.split()[0] for line in first_lines}
    names = (
        "version",
        "tls",
        "role",
        "policy",
        "persistence",
        "memory",
        "clock",
        "libraries",
        "acl",
        "members",
        "settings",
    )
    assert found == dict.fromkeys(names, "ok")
    assert admin.info("persistence")["rdb_changes_since_last_save"] == before
    assert admin.dbsize() == 0
    assert admin.function_list() == []


@pytest.mark.parametrize(
    ("name", "settings", "words"),
    [
        ("policy", {"maxmemory-policy": "allkeys-lru"}, ["allkeys-lru", "to noeviction"]),
        ("persistence", {"appendonly": "no"}, ["append-only", "appendonly to yes"]),
        ("memory", {"maxmemory": "1mb"}, ["maxmemory 1.0 MB", "raise maxmemory"]),
    ],
)
def test_what_is_wrong_is_said_with_what_to_set(
    own_server: EmbeddedServer,
    admin: redis.Redis,
    name: str,
    settings: dict[str, str],
    words: list[str],
) -> None:
    for setting, value in settings.items():
        admin.config_set(setting, value)
    result = doctor(own_server)
    assert result.exit_code == 5
    assert state_of(result, name)[0] == "wrong"
    said = " ".join(result.output.split())
    for word in words:
        assert word in said
    assert said.count("wrong ") == 1
    assert max(map(len, result.output.splitlines())) <= WIDTH


def test_a_replica_is_told_from_a_primary(own_server: EmbeddedServer, admin: redis.Redis) -> None:
    admin.replicaof("127.0.0.1", 1)
    result = doctor(own_server)
    assert result.exit_code == 5
    assert state_of(result, "role") == (
        "wrong",
        "wrong  role         replica of 127.0.0.1:1, which takes no writes",
    )


def test_a_library_with_other_code_is_named(own_server: EmbeddedServer, admin: redis.Redis) -> None:
    batch = script("requests/batch")
    replace_library(admin, batch)
    result = doctor(own_server)
    assert result.exit_code == 5
    assert "requests/batch" in state_of(result, "libraries")[1]
    assert f"FUNCTION DELETE {batch.function}" in " ".join(result.output.split())


def test_a_server_that_is_not_there_is_an_error_of_its_own_code() -> None:
    result = CliRunner().invoke(cli, ["doctor", "--url", "redis://127.0.0.1:1"])
    assert result.exit_code == 1
    assert "no answer from the server" in str(result.exception)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("role", {"role": "slave"}),
        ("policy", {"maxmemory_policy": "volatile-ttl"}),
        ("persistence", {"aof_enabled": 0, "connected_slaves": 0}),
        ("persistence", {"aof_last_write_status": "err"}),
        ("persistence", {"rdb_last_bgsave_status": "err"}),
        ("memory", {"used_memory": 90_000_000}),
    ],
)
def test_each_field_that_is_wrong_makes_one_check_wrong(name: str, change: dict[str, Any]) -> None:
    assert [check.state for check in checks_of_info(WELL, UNIX)] == ["ok"] * 6
    wrong = [check for check in checks_of_info(WELL | change, UNIX) if check.state != "ok"]
    assert [(check.name, check.state, bool(check.remedy)) for check in wrong] == [
        (name, "wrong", True)
    ]


@pytest.mark.parametrize(
    ("name", "field"),
    [("role", "role"), ("policy", "maxmemory_policy"), ("persistence", "aof_enabled")],
)
def test_what_a_host_hides_is_said_to_be_hidden(name: str, field: str) -> None:
    info = {key: value for key, value in WELL.items() if key != field}
    found = [(c.name, c.state) for c in checks_of_info(info, UNIX) if c.state != "ok"]
    assert found == [(name, "hidden")]
    assert libraries_check(None).state == "hidden"


@pytest.mark.parametrize(
    ("ahead", "round_trip", "state", "word"),
    [
        (0.5, 0.01, "ok", "ahead"),
        (-0.5, 0.01, "ok", "behind"),
        (-7.0, 0.01, "wrong", "behind"),
        (7.0, 0.01, "wrong", "ahead"),
        (7.0, 6.0, "ok", "ahead"),
    ],
)
def test_clocks_may_differ_by_two_seconds_and_the_round_trip(
    ahead: float, round_trip: float, state: str, word: str
) -> None:
    check = clock_check(ahead, round_trip)
    assert (check.state, word in check.said) == (state, True)


def test_tls_without_verification_is_wrong() -> None:
    address = TcpAddress(host="h", tls=TlsFiles())
    unverified = replace(address, tls=TlsFiles(verifies="nothing"))
    states = {
        place: [check.state for check in checks_of_info(WELL, place) if check.name == "tls"]
        for place in (address, unverified)
    }
    assert states == {address: ["ok"], unverified: ["wrong"]}


def test_libraries_of_other_versions_are_counted() -> None:
    batch = script("requests/batch")
    own = {batch.function: batch.library, LIBRARY: ""}
    assert "other" not in libraries_check(own).said
    found = libraries_check({**own, "forebay_older": "", "forebay_old": ""})
    assert found.state == "ok"
    assert "1 of this version's 4" in found.said
    assert "2 of other versions" in found.said
