"""Periodic work of arq's main loop; the failure of one part ends no worker.

Rules: design 04, *From submit to finish*.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Final

from redis.exceptions import RedisError, ResponseError

from forebay.contracts.errors import CoordinatorUnavailable, ForebayError
from forebay.coordinator.logs import Logger
from forebay.coordinator.server_connection import ServerConnection
from forebay.coordinator.supervision import Guard, pause_seconds

PARTS: Final = ("beats", "aborts", "aborts of waiting jobs", "hints")
"""The parts of a turn, as the log names them."""

log = Logger("forebay.worker")


class Turns:
    """Runs the parts of a turn, and logs their failures once per change.

    Args:
        connection: tells whether the server is away.
        pool: the pool's name, for the log.
        guard: logs what nobody expected.
    """

    def __init__(self, connection: ServerConnection, pool: str, guard: Guard) -> None:
        self._guard = guard
        self._refusals: dict[str, str] = {}
        self._failures: Counter[str] = Counter()  # in a row, of parts to which the server was away
        self._again_at: dict[str, float] = {}  # loop time before which a failed part is skipped
        self._client = connection.client
        self._states = {name: connection.availability.state_of(name, pool=pool) for name in PARTS}

    @property
    def is_away(self) -> bool:
        """Whether the server was away when one of the parts last asked it."""
        return any(state.is_lost for state in self._states.values())

    async def do_unless_pausing(self, name: str, work: Callable[[], Awaitable[None]]) -> None:
        """Run one part, after a pause if the server was away in the part's last run.

        The pauses grow and are drawn at random, so that the workers of a fleet do not come back at
        one instant.
        """
        loop = asyncio.get_running_loop()
        if self._states[name].is_lost and loop.time() < self._again_at.get(name, 0.0):
            return
        await self.do(name, work)
        self._failures[name] = self._failures[name] + 1 if self._states[name].is_lost else 0
        self._again_at[name] = loop.time() + pause_seconds(self._failures[name])

    async def do(self, name: str, work: Callable[[], Awaitable[None]]) -> None:
        """Run one part; an exception is logged, and the next turn runs the part again."""
        state = self._states[name]
        try:
            await work()
            if state.is_lost:
                await self._client.time()  # the work may have asked the server nothing
        except ResponseError as error:
            if not str(error).startswith("WRONGTYPE"):
                state.lost(error)
            elif self._refusals.get(name) != str(error):
                log.warning("heart_beat_failed", during=name, error=str(error))
            self._refusals[name] = str(error)
        except (RedisError, OSError, CoordinatorUnavailable) as error:
            state.lost(error)
        except ForebayError as error:  # as of a cron job that a draining pool does not take
            log.warning("heart_beat_failed", error=str(error))
        except Exception as error:  # noqa: BLE001 - of a cron job's schedule, say
            self._guard.note(name, error)
        else:
            self._refusals.pop(name, None)
            state.back()

    def forget(self) -> None:
        """Forget outages when the worker has closed, without log lines of their end."""
        for state in self._states.values():
            state.forget()
