"""The demo's calls with exponential back-off alone: as many callers, no leases.

Each caller does what SDKs do by themselves: a refused call sleeps for the provider's hint, else
twice as long as before, and tries again. SDKs give up after two retries; here nobody does, so that
all calls are answered in the end. No caller knows of the others. The fleet has a provider and a
process of its own, and ends with the demo at the latest.
"""

from __future__ import annotations

import asyncio
import signal
import time
from multiprocessing import get_context
from multiprocessing.connection import Connection
from random import Random
from typing import TYPE_CHECKING, Any, Final

from forebay.contracts.errors import ConfigurationError
from forebay.demo.observations import Observations, take_log
from forebay.demo.scenario import CAPACITY, PROVIDER, SLOTS_PER_WORKER, WORKERS
from forebay.mock_provider.server import MockProviderServer

if TYPE_CHECKING:
    import httpx2

SHORTEST_SECONDS: Final = 0.5
LONGEST_SECONDS: Final = 8.0
SDK_RETRIES: Final = 2
"""Default number of retries of the OpenAI and Anthropic SDKs."""
REFUSED: Final = 429
TIMEOUT_SECONDS: Final = 60.0
ANSWERS_WITHIN_SECONDS: Final = 60.0


class BackoffBeside:
    """A fleet with back-off alone, in a process of its own, beside the demo's.

    Args:
        callers: how many call; as many as the demo's workers have slots.
    """

    def __init__(self, callers: int = WORKERS * SLOTS_PER_WORKER) -> None:
        context = get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_work, args=(theirs, callers), daemon=True)
        # A Ctrl-C is for the demo, which ends this process; it ignores what is ignored now.
        handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
        self._process.start()
        signal.signal(signal.SIGINT, handler)
        theirs.close()

    @property
    def pid(self) -> int:
        """The process that has the fleet and its provider."""
        return self._process.pid or 0

    def begin(self, calls: int) -> None:
        """Let the fleet make so many calls, once its provider listens.

        Raises:
            ConfigurationError: here and below, if the process has ended.
        """
        self._receive()
        self._send(calls)

    def change(self, capacity: int) -> None:
        """Change the hidden capacity of the fleet's provider."""
        self._send(capacity)

    def finish(self) -> Observations:
        """Let the fleet begin no more calls; return the requests that its provider saw."""
        self._send(None)
        seen: Observations = self._receive()
        self.close()
        return seen

    def close(self) -> None:
        """End the process; closing twice is fine."""
        self._process.terminate()
        self._process.join()
        self._pipe.close()

    def _send(self, number: int | None) -> None:
        try:
            self._pipe.send(number)
        except OSError as error:
            raise _ended() from error

    def _receive(self) -> Any:
        try:
            if self._pipe.poll(ANSWERS_WITHIN_SECONDS):
                return self._pipe.recv()
        except (EOFError, OSError) as error:
            raise _ended() from error
        raise _ended()


def _ended() -> ConfigurationError:
    return ConfigurationError(
        "the demo's fleet with back-off alone has ended or hangs, expected it to go on beside the"
        " demo; its own error is on stderr. --no-backoff leaves it out."
    )


def _work(pipe: Connection, callers: int) -> None:
    asyncio.run(BackoffRun(callers).run(pipe))


class BackoffRun:
    """Calls from many callers, until all are answered or a message ends it."""

    def __init__(self, callers: int) -> None:
        self._answered = 0
        self._callers = callers
        self._left = 0
        self._is_over = False
        self._random = Random(7)  # noqa: S311 - repeatable on purpose
        self._seen = Observations()

    async def run(self, pipe: Connection) -> None:
        """Say "ready", make as many calls as are asked for, then change capacities until None."""
        import httpx2  # noqa: PLC0415 - an extra

        with MockProviderServer(PROVIDER, seed=7) as provider:
            started = time.monotonic() - provider.state.elapsed_seconds()
            pipe.send("ready")
            self._left, before = await asyncio.to_thread(pipe.recv), CAPACITY
            limits = httpx2.Limits(max_connections=None)
            async with (
                httpx2.AsyncClient(
                    base_url=provider.base_url, limits=limits, timeout=TIMEOUT_SECONDS
                ) as client,
                asyncio.TaskGroup() as group,
            ):
                for _ in range(self._callers):
                    group.create_task(self._call_on(client))
                while (capacity := await asyncio.to_thread(pipe.recv)) is not None:
                    await asyncio.to_thread(provider.change_truth, concurrency=capacity)
                    note = f"capacity {before} -> {capacity}"
                    self._seen.notes.append((time.monotonic() - started, note))
                    before = capacity
                self._is_over = True  # each caller ends its attempt
            take_log(provider, self._seen)
        pipe.send(self._seen)

    def has_answered(self, calls: int) -> bool:
        """Return whether so many calls are answered."""
        return self._answered >= calls

    async def _call_on(self, client: httpx2.AsyncClient) -> None:
        while self._left and not self._is_over:
            self._left -= 1
            await self._call(client, f"message {self._left}")

    async def _call(self, client: httpx2.AsyncClient, message: str) -> None:
        body = {"model": "mock-large", "messages": [{"role": "user", "content": message}]}
        longest, refusals = SHORTEST_SECONDS, 0
        while not self._is_over:
            answer = await client.post("chat/completions", json=body)
            if answer.status_code != REFUSED:
                answer.raise_for_status()
                self._answered += 1
                return
            refusals += 1
            self._seen.beyond_sdks += refusals == SDK_RETRIES + 1
            hint = answer.headers.get("retry-after-ms")
            pause = longest * (1 - 0.25 * self._random.random())
            await asyncio.sleep(pause if hint is None else int(hint) / 1000)
            longest = min(LONGEST_SECONDS, 2 * longest)
