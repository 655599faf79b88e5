"""How transports in threads join: once for each process, however many ask at the same time."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import pytest

import forebay
from forebay.transports import admission
from forebay.transports.admission import BlockingAdmission, RegisterAs
from tests.contract.chat_domain import MODEL

THREADS = 8
STARTS = 50
OTHER = forebay.ProviderModelKey(provider_name="p", model_id="other")


class Joins:
    """Stands for `forebay.connect` and counts who enters."""

    def __init__(self) -> None:
        self.entered = 0
        self.left = 0
        self.controller: Any = object()

    def __enter__(self) -> Any:
        self.entered += 1
        return self.controller

    def __exit__(self, *_: object) -> None:
        self.left += 1


@pytest.fixture
def joins(monkeypatch: pytest.MonkeyPatch) -> Joins:
    joins = Joins()
    monkeypatch.setattr(admission, "connect", lambda *_: joins)
    return joins


@pytest.mark.parametrize("is_forked", [False, True], ids=["first calls", "in a forked child"])
def test_threads_that_ask_first_at_the_same_time_join_once(
    joins: Joins, is_forked: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    together = threading.Barrier(THREADS)

    def process_id() -> int:
        together.wait(10)  # whoever has to find out where it runs does so with all others
        return -1

    for _ in range(STARTS):
        asked = BlockingAdmission("redis://nowhere", None)
        if is_forked:
            asked.ready(MODEL)
        joins.entered = 0
        with monkeypatch.context() as child, ThreadPoolExecutor(THREADS) as threads:
            child.setattr(admission, "os", SimpleNamespace(getpid=process_id))
            given = set(threads.map(asked.ready, [MODEL] * THREADS))
        assert (len(given), joins.entered) == (1, 1)


def test_who_has_left_joins_anew_and_leaves_again(joins: Joins) -> None:
    asked = BlockingAdmission("redis://nowhere", None)
    for times in (1, 2):
        assert asked.ready(MODEL) is asked.ready(MODEL)
        asked.close()
        asked.close()
        assert (joins.entered, joins.left) == (times, times)


def test_a_model_that_is_registered_does_not_wait_for_one_that_is_being(joins: Joins) -> None:
    is_registering, goes_on = threading.Event(), threading.Event()

    def register(provider_model: forebay.ProviderModelKey, *_: object) -> None:
        if provider_model == OTHER:
            is_registering.set()
            assert goes_on.wait(10)

    joins.controller = SimpleNamespace(register=register)
    asked = BlockingAdmission(
        "redis://nowhere",
        RegisterAs(max_parallel_requests=1, config=forebay.RequestAdmissionConfig()),
    )
    asked.ready(MODEL)
    with ThreadPoolExecutor(2) as threads:
        other = threads.submit(asked.ready, OTHER)
        assert is_registering.wait(10)
        assert threads.submit(asked.ready, MODEL).result(5) is joins.controller
        goes_on.set()
        assert other.result(5) is joins.controller
