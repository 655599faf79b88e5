"""Fixtures for every test: one real server per session, emptied for each test that uses it."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest
import structlog

from forebay.coordinator.server.connections import open_sync
from forebay.coordinator.server.embedded import EmbeddedServer
from forebay.coordinator.server.urls import parse_url
from tests.support_answers import answers
from tests.support_raw_provider import RawProvider

SOURCE_FOLDERS = ("contracts", "coordinator", "lua", "workers")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin the long tests first, so that no core is left with one of them at the end."""
    items.sort(key=lambda item: item.get_closest_marker("long") is None)


@pytest.fixture(scope="session", autouse=True)
def _no_bare_names() -> Iterator[None]:
    """Fail a run that imported a source folder by its bare name: a second copy of each class."""
    yield
    assert [name for name in sys.modules if name.partition(".")[0] in SOURCE_FOLDERS] == []


@pytest.fixture(autouse=True)
def _own_logging() -> Iterator[None]:
    """Undo what a test configured: it decides where everybody's logs go."""
    yield
    structlog.reset_defaults()


@pytest.fixture(scope="session")
def server() -> Iterator[EmbeddedServer]:
    """A real server with temporary data; a test that kills it must use one of its own."""
    with EmbeddedServer() as server:
        yield server


@pytest.fixture
def redis_url(server: EmbeddedServer) -> str:
    """The URL of the session's server, which is empty when the test begins."""
    with open_sync(parse_url(server.url)) as client:
        client.flushall()
    return server.url


@pytest.fixture
def provider() -> Iterator[RawProvider]:
    """A provider that answers byte for byte as a test says, well if it says nothing."""
    with RawProvider(answers) as provider:
        yield provider
