"""Clients and the server check, against a real server and against things that are none."""

from __future__ import annotations

import asyncio
import socket
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import redis

from forebay.contracts.errors import ConfigurationError, CoordinatorUnavailable, ServerTooOld
from forebay.coordinator.server.address import EmbeddedAddress, TcpAddress, TlsFiles, UnixAddress
from forebay.coordinator.server.connections import open_async, open_sync
from forebay.coordinator.server.embedded_files import find_server_binary
from forebay.coordinator.server.refusals import connection_error
from forebay.coordinator.server.urls import parse_url
from forebay.coordinator.server.version import (
    ServerVersion,
    check_server,
    parse_server_version,
    require_supported,
)

SECRET = "hunter2"


@pytest.fixture
def address(redis_url) -> UnixAddress:
    parsed = parse_url(redis_url)
    assert isinstance(parsed, UnixAddress)
    return parsed


@pytest.fixture
def protected(address) -> Iterator[UnixAddress]:
    """The server while it asks for a login, and knows one user who may do nothing."""
    with open_sync(address) as client:
        client.config_set("requirepass", SECRET)
        client.acl_setuser("idle", enabled=True, passwords=[f"+{SECRET}"])
        yield replace(address, password=SECRET)
        client.acl_deluser("idle")
        client.config_set("requirepass", "")


@asynccontextmanager
async def imitation(answer: Callable[[list[bytes]], bytes | None]) -> AsyncIterator[TcpAddress]:
    """A server on TCP that answers commands as told; None closes the connection instead."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while (head := await reader.readline()).startswith(b"*"):
            command = []
            for _ in range(int(head[1:])):
                size = int((await reader.readline())[1:])
                command.append((await reader.readexactly(size + 2))[:-2])
            reply = answer(command)
            if reply is None:
                break
            writer.write(reply)
        writer.close()

    listener = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with listener:
        yield TcpAddress(host="127.0.0.1", port=listener.sockets[0].getsockname()[1])


async def check(address, *, timeout_seconds=5.0) -> ServerVersion:
    async with open_async(address) as client:
        return await check_server(client, address, timeout_seconds=timeout_seconds)


async def test_async_and_sync_clients_speak_bytes_with_the_same_server(address):
    async with open_async(address) as writer:
        await writer.set("k", b"\xff")
    with open_sync(address) as reader:
        assert reader.get("k") == b"\xff"


async def test_the_database_of_the_url_is_used(address):
    async with open_async(replace(address, database=1)) as client:
        await client.set("k", "v")
    with open_sync(address) as client:
        assert client.get("k") is None
        assert client.info("keyspace")["db1"]["keys"] == 1


async def test_the_login_of_the_url_is_used(protected):
    assert (await check(protected)).is_supported
    with open_sync(protected) as client:
        assert client.ping()


async def test_a_server_is_known_by_the_version_its_binary_states(address):
    """Valkey's ``redis_version`` is another one."""
    binary = find_server_binary()
    stated = await asyncio.to_thread(subprocess.check_output, [binary, "--version"], text=True)
    product, number = str(await check(address)).split()
    assert stated.startswith(f"{product} server v={number} ")


@pytest.mark.parametrize("password", [None, "wrong-" + SECRET])
async def test_a_missing_or_wrong_password_is_a_wrong_url(protected, password):
    with pytest.raises(ConfigurationError, match="refused the login") as refusal:
        await check(replace(protected, password=password))
    assert SECRET not in str(refusal.value)
    assert protected.path in str(refusal.value)


async def test_a_user_who_may_not_ask_for_info_is_told_about_its_acl(protected):
    with pytest.raises(ConfigurationError, match="forbids this user"):
        await check(replace(protected, username="idle"))


async def test_a_database_that_the_server_lacks_is_a_wrong_url(address):
    with pytest.raises(ConfigurationError, match="a database that it has"):
        await check(replace(address, database=9999))


@pytest.mark.parametrize(
    "absent",
    [
        UnixAddress(path="/nowhere/redis.sock", password=SECRET),
        TcpAddress(host="no-such-host.invalid", password=SECRET),
    ],
)
async def test_a_server_that_is_not_there_is_unavailable_by_name(absent):
    with pytest.raises(CoordinatorUnavailable) as failure:
        await check(absent)
    message = str(failure.value)
    assert str(absent) in message
    assert SECRET not in message
    assert "is it running" in message
    assert "embedded://" in message


async def test_a_port_that_nobody_listens_on_is_unavailable():
    with socket.socket() as reserved:  # bound and not listening: refused, and nobody else's
        reserved.bind(("127.0.0.1", 0))
        with pytest.raises(CoordinatorUnavailable):
            await check(TcpAddress(host="127.0.0.1", port=reserved.getsockname()[1]))


async def test_a_server_that_never_answers_is_given_up_at_the_deadline():
    async with imitation(lambda _: b"") as address:
        with pytest.raises(CoordinatorUnavailable, match=r"for up to 0\.1 s"):
            await check(address, timeout_seconds=0.1)


async def test_something_that_is_no_redis_is_a_wrong_url():
    async with imitation(lambda _: b"HTTP/1.1 400 Bad Request\r\n\r\n") as address:
        with pytest.raises(ConfigurationError, match="expected Redis"):
            await check(address)


async def test_a_server_without_tls_fails_a_tls_url_with_a_typed_error():
    async with imitation(lambda _: b"") as address:
        with pytest.raises(CoordinatorUnavailable, match="rediss://"):
            await check(replace(address, tls=TlsFiles()))


def test_tls_verifies_the_certificate_and_the_host_name():
    address = TcpAddress(host="example.org", tls=TlsFiles(ca_file="/ca.pem"))
    with open_sync(address) as client:
        settings = client.connection_pool.connection_kwargs
        assert settings["ssl_cert_reqs"] == "required"
        assert settings["ssl_check_hostname"] is True
        assert settings["ssl_ca_certs"] == "/ca.pem"
    kind = open_async(address).connection_pool.connection_class
    assert issubclass(kind, redis.asyncio.SSLConnection)


@pytest.mark.parametrize(
    ("parameter", "certificate", "host_name"),
    [("ssl_cert_reqs=none", "none", False), ("ssl_check_hostname=false", "required", False)],
)
def test_tls_verifies_less_where_the_url_says_so(parameter, certificate, host_name):
    with open_sync(parse_url(f"rediss://example.org?{parameter}")) as client:
        settings = client.connection_pool.connection_kwargs
        assert settings["ssl_cert_reqs"] == certificate
        assert settings["ssl_check_hostname"] is host_name


def test_a_certificate_that_nobody_signed_is_answered_with_what_to_write():
    failure = redis.ConnectionError("[SSL: CERTIFICATE_VERIFY_FAILED] self-signed certificate")
    said = str(connection_error(failure, TcpAddress(host="h", tls=TlsFiles()), "connecting"))
    assert "?ssl_ca_certs=/path/ca.pem" in said
    assert "?ssl_cert_reqs=none" in said


def test_an_embedded_address_must_be_started_first():
    address = EmbeddedAddress(data_dir=Path("/data"))
    for open_client in (open_async, open_sync):
        with pytest.raises(ConfigurationError, match="EmbeddedServer"):
            open_client(address)


async def test_a_client_never_sends_a_command_twice_by_itself():
    """A lost reply leaves the outcome open; only a numbered batch may be sent again."""
    received = []

    def lose_the_reply(command):
        received.append(command[0])
        return {b"PING": b"+PONG\r\n", b"INCRBY": None}.get(command[0], b"+OK\r\n")

    async with imitation(lose_the_reply) as address:
        async with open_async(address) as client:
            with pytest.raises(redis.ConnectionError):
                await client.incr("count")
        assert received.count(b"INCRBY") == 1
        with open_sync(address) as client, pytest.raises(redis.ConnectionError):
            await asyncio.to_thread(client.incr, "count")
        assert received.count(b"INCRBY") == 2


@pytest.mark.parametrize(
    ("server_info", "version", "text", "supported"),
    [
        ({"redis_version": "7.0.0"}, ("redis", (7, 0, 0)), "Redis 7.0.0", True),
        ({"redis_version": "6.2.14"}, ("redis", (6, 2, 14)), "Redis 6.2.14", False),
        ({"redis_version": 8.0}, ("redis", (8, 0, 0)), "Redis 8.0.0", True),
        ({"redis_version": "8.2-rc1"}, ("redis", (8, 2, 0)), "Redis 8.2.0", True),
        ({"redis_version": "10.0.1"}, ("redis", (10, 0, 1)), "Redis 10.0.1", True),
        (
            {"redis_version": "7.2.4", "valkey_version": "7.2.9"},
            ("valkey", (7, 2, 9)),
            "Valkey 7.2.9",
            False,
        ),
        (
            {"redis_version": "7.2.4", "valkey_version": "8.0.0"},
            ("valkey", (8, 0, 0)),
            "Valkey 8.0.0",
            True,
        ),
    ],
)
def test_versions_are_read_and_judged(server_info, version, text, supported):
    found = parse_server_version(server_info)
    assert (found.product, found.number) == version
    assert str(found) == text
    assert found.is_supported is supported


@pytest.mark.parametrize("server_info", [{}, {"redis_version": "unknown"}])
def test_a_server_without_a_version_is_a_wrong_url(server_info):
    with pytest.raises(ConfigurationError, match="no redis_version or valkey_version"):
        parse_server_version(server_info)


def test_a_server_that_is_too_old_is_named_with_what_is_expected():
    address = TcpAddress(host="example.org", password=SECRET)
    with pytest.raises(ServerTooOld) as refusal:
        require_supported(parse_server_version({"redis_version": "6.2.14"}), address)
    for part in ("example.org", "Redis 6.2.14", "Redis 7.0 or newer", "Valkey 8", "upgrade"):
        assert part in str(refusal.value)
    assert SECRET not in str(refusal.value)


async def test_an_old_server_is_refused_when_it_is_asked():
    old = b"redis_version:6.0.16\r\n"
    replies = {b"PING": b"+PONG\r\n", b"INFO": b"$%d\r\n%b\r\n" % (len(old), old)}
    async with imitation(lambda command: replies.get(command[0], b"+OK\r\n")) as address:
        with pytest.raises(ServerTooOld, match=r"Redis 6\.0\.16"):
            await check(address)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (redis.ConnectionError("gone"), CoordinatorUnavailable),
        (redis.TimeoutError(), CoordinatorUnavailable),
        (redis.BusyLoadingError("loading"), CoordinatorUnavailable),
        (TimeoutError(), CoordinatorUnavailable),
        (ConnectionResetError(), CoordinatorUnavailable),
        (redis.AuthenticationError("NOAUTH"), ConfigurationError),
        (redis.exceptions.AuthorizationError("no"), ConfigurationError),
        (redis.exceptions.NoPermissionError("no"), ConfigurationError),
        (redis.ResponseError("no"), ConfigurationError),
    ],
)
def test_each_kind_of_failure_has_its_typed_error(error, expected):
    address = TcpAddress(host="example.org")
    assert type(connection_error(error, address, "trying")) is expected


async def test_each_address_of_a_host_is_tried(monkeypatch):
    async def answer(reader, writer):
        while await reader.read(4096):
            writer.write(b"+PONG\r\n")
        writer.close()

    listening = await asyncio.start_server(answer, "127.0.0.1", 0)
    port = listening.sockets[0].getsockname()[1]

    def two(*_, **__):
        return [(0, 0, 0, "", (host, 0)) for host in ("127.0.0.2", "127.0.0.1")]

    monkeypatch.setattr(socket, "getaddrinfo", two)
    async with listening, open_async(parse_url(f"redis://redis.invalid:{port}")) as client:
        assert await client.ping()
