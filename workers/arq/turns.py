"""Periodic duties of arq's main loop; the failure of one ends no worker (spec 04)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

from redis.exceptions import RedisError, ResponseError

from forebay.contracts.errors import CoordinatorUnavailable, ForebayError
from forebay.coordinator.coordinator import Coordinator
from forebay.coordinator.logs import Logger
from forebay.coordinator.supervision import Guard

PARTS: Final = ("beats", "aborts", "aborts of waiting jobs", "hints")
"""The parts of a turn, as the log names them."""

log = Logger("forebay.worker")


class Turns:
    """Does the parts of a turn, and logs what they raise once per change.

    Args:
        coordinator: tells whether the server is away.
        pool: the pool's name, for the log.
        guard: logs what nobody expected.
    """

    def __init__(self, coordinator: Coordinator, pool: str, guard: Guard) -> None:
        self._guard = guard
        self._refusals: dict[str, str] = {}
        self._client = coordinator.client
        self._states = {
            name: coordinator.availability.connection(name, pool=pool) for name in PARTS
        }

    @property
    def is_away(self) -> bool:
        """Whether the server was away when one of the parts last asked it."""
        return any(state.is_lost for state in self._states.values())

    async def do(self, name: str, work: Callable[[], Awaitable[None]]) -> None:
        """Do one part; what it raises is logged, and the next turn does it again."""
        state = self._states[name]
        try:
            await work()
            if state.is_lost:
                await self._client.ping()  # the work may have asked the server nothing
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
        """Take it that the worker is closed: its outages end unsaid."""
        for state in self._states.values():
            state.forget()
