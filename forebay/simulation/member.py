"""A simulated member, which sends the same calls as the real client.

One batch is under way at a time, what is asked meanwhile goes with the next, at most 64 operations;
a grant comes with a reply or as a message; a heartbeat and a sweep come each third of the TTL, and
a look at the instant that the last reply named. Left out is the recheck each second: here no
message is lost.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final

from forebay.contracts.outcomes import RequestReleaseOutcome
from forebay.contracts.requests import RequestAdmissionItem, RequestAdmissionLease
from forebay.contracts.settings import RequestAdmissionConfig
from forebay.coordinator.keys import KEEP_UNUSED_SHARD_MS, SCHEMA_VERSION, ShardKeys
from forebay.coordinator.requests.operations import Acquire, decode_lease
from forebay.coordinator.requests.rechecks import SHORTEST_WAKE_SECONDS
from forebay.coordinator.requests.registering import Register
from forebay.coordinator.requests.releasing import Release
from forebay.coordinator.server.membership import member_keys
from forebay.coordinator.shard.backlog import OPERATIONS_PER_CALL
from forebay.simulation.server import SimulatedServer
from forebay.simulation.timeline import SECOND_US, Timeline, to_us

TTL_US: Final = 15 * SECOND_US
WAY_US: Final = 200
"""Simulated time from a process to the server, and back."""

OnGranted = Callable[[RequestAdmissionLease], None]
OnResult = Callable[[Sequence[Any]], None]


class SimulatedMember:
    """One live member of a shard.

    Args:
        server: with the shard.
        timeline: when things happen.
        keys: of the shard.
        member_id: never used before.
        ttl_us: of its membership, which it renews each third of it.

    Attributes:
        is_alive: until it is killed.
    """

    def __init__(
        self,
        server: SimulatedServer,
        timeline: Timeline,
        keys: ShardKeys,
        member_id: str,
        ttl_us: int = TTL_US,
    ) -> None:
        self.is_alive = True
        self._ttl_us = ttl_us
        self._server = server
        self._timeline = timeline
        self._keys = keys
        self._key_list = keys.all
        self._member_id = member_id
        self._queue: deque[tuple[Sequence[Any], OnResult]] = deque()
        self._is_calling = False
        self._is_sending_soon = False
        self._number = 0
        self._looks = 0
        self._asked: dict[str, tuple[RequestAdmissionItem, OnGranted]] = {}
        self._channel = keys.wake_channel(member_id)
        server.listen(self._channel, self._hear)
        join = (member_id, ttl_us, SCHEMA_VERSION, "simulated", "", "", KEEP_UNUSED_SHARD_MS)
        server.call("member/join", member_keys(keys), (*join, "- 0 simulated 0"))
        timeline.every(ttl_us // 3, self._beat)

    def register(self, cap: int, config: RequestAdmissionConfig) -> None:
        """Register the provider/model; takes effect with the next batch."""
        self._submit(Register("main", cap, config).encode(), _ignore)

    def acquire(self, item: RequestAdmissionItem, on_granted: OnGranted) -> None:
        """Wait for a lease for as long as it takes."""
        self._asked[item.attempt_id] = item, on_granted

        def answered(result: Sequence[Any]) -> None:
            if result[0] == "granted":
                self._take(*result[1:])
            elif result[0] != "waiting":
                raise AssertionError(f"{item.attempt_id} was answered {result}")

        self._submit(Acquire(item, "").encode(), answered)

    def release(self, lease: RequestAdmissionLease, outcome: RequestReleaseOutcome) -> None:
        """Release a lease."""
        self._submit(Release(lease, outcome).encode(), _ignore)

    def kill(self) -> None:
        """End as by SIGKILL: nothing is sent, received or renewed any more."""
        self.is_alive = False
        self._server.unlisten(self._channel)

    # -- batches

    def _submit(self, args: Sequence[Any], on_result: OnResult) -> None:
        self._queue.append((args, on_result))
        if not self._is_calling and not self._is_sending_soon:
            self._is_sending_soon = True
            self._timeline.after(0, self._send)  # what this instant brings up travels together

    def _send(self) -> None:
        self._is_sending_soon = False
        if self._is_calling or not self._queue or not self.is_alive:
            return
        count = min(len(self._queue), OPERATIONS_PER_CALL)
        batch = [self._queue.popleft() for _ in range(count)]
        self._is_calling = True
        self._timeline.after(WAY_US, self._arrive, batch)

    def _arrive(self, batch: Sequence[tuple[Sequence[Any], OnResult]]) -> None:
        self._number += 1
        arguments = [self._member_id, self._number]
        for args, _on_result in batch:
            arguments += args
        reply = self._server.call("requests/batch", self._key_list, arguments)
        self._timeline.after(WAY_US, self._answered, batch, json.loads(reply))

    def _answered(self, batch: Sequence[tuple[Sequence[Any], OnResult]], reply: list[Any]) -> None:
        self._is_calling = False
        if not self.is_alive:
            return
        now_us, wake_us, _generation, results, notices, _ = reply
        self._send()  # before this reply is delivered, as the client does
        self._take_notices(notices)
        self._look_at(wake_us - now_us if wake_us else None)
        for (_args, on_result), result in zip(batch, results, strict=True):
            on_result(result)

    # -- grants

    def _hear(self, payload: bytes) -> None:
        self._timeline.after(WAY_US, self._take_notices, json.loads(payload)[1])

    def _take_notices(self, notices: Sequence[Sequence[Any]]) -> None:
        for kind, *terms in notices if self.is_alive else ():
            if kind != "granted":
                raise AssertionError(f"{self._member_id} was told {kind} {terms}")
            self._take(*terms)

    def _take(self, attempt_id: str, *terms: Any) -> None:
        item, on_granted = self._asked.pop(attempt_id)
        on_granted(decode_lease(item, terms, "simulated", self._member_id))

    # -- timers

    def _beat(self) -> None:
        if self.is_alive:
            args = (self._member_id, self._ttl_us, KEEP_UNUSED_SHARD_MS)
            self._server.call("member/heartbeat", member_keys(self._keys), args)
            self._submit(("sweep",), _ignore)

    def _look_at(self, pause_us: int | None) -> None:
        """Call the shard at the instant that its last reply named."""
        self._looks += 1
        if pause_us is not None and self._asked:
            shortest = to_us(SHORTEST_WAKE_SECONDS)
            self._timeline.after(max(shortest, pause_us), self._look, self._looks)

    def _look(self, number: int) -> None:
        if number == self._looks and self._asked and self.is_alive:
            attempt_id = next(iter(self._asked))

            def answered(result: Sequence[Any]) -> None:
                if result[0] == "granted" and attempt_id in self._asked:
                    self._take(*result[1:])

            self._submit(("state", attempt_id), answered)


def _ignore(_result: Sequence[Any]) -> None:
    """Ignore a result without a caller."""
