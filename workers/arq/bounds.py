"""Deadlines for arq's own commands on a pool's server.

Rules: design 06.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError

from forebay.contracts.errors import CoordinatorUnavailable
from forebay.contracts.settings import MemberSettings
from forebay.coordinator.server.address import ServerAddress
from forebay.coordinator.server.refusals import connection_error, is_away

T = TypeVar("T")


class PoolUnavailable(CoordinatorUnavailable, RedisConnectionError):  # noqa: N818 - as its base
    """The server of a pool does not answer a command of arq's within the deadline of a call.

    A program that was written for arq catches redis-py's errors, so this is one of them as well.
    """


class Bounds:
    """Bounds commands by the deadline of a call; the errors name the server.

    Args:
        address: the server.
        settings: say the deadline.
    """

    def __init__(self, address: ServerAddress, settings: MemberSettings) -> None:
        self._address = address
        self._seconds = settings.call_timeout_seconds

    async def run(self, command: Awaitable[T]) -> T:
        """Await a command within the deadline; return its reply.

        Raises:
            PoolUnavailable: the server is away, or cannot serve now.
            RedisError: another error of the command, unchanged.
        """
        try:
            async with asyncio.timeout(self._seconds):
                return await command
        except (RedisError, OSError) as error:
            if not is_away(error):
                raise
            found = connection_error(error, self._address, "running a command of arq's")
            raise PoolUnavailable(str(found)) from error
