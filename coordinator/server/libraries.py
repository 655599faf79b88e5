"""The function libraries that a process calls: verified by their code, never replaced (ADR 0006).

Whoever may load a library may replace every other. So a name proves nothing: the code behind it is
read before it is called for the first time, and again after an answer that is not the script's. A
name that another code has taken is left to it, and the library is loaded under the next one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from redis.exceptions import ResponseError

from forebay.contracts.errors import ConfigurationError
from forebay.coordinator.logs import Logger
from forebay.coordinator.scripts.composing import Script
from forebay.coordinator.scripts.composing import script as script_named

MOST_NAMES: Final = 8
"""Names that are tried for one library: so often it may be replaced."""

log = Logger("forebay.libraries")


class Libraries:
    """The names of this version's function libraries on a server; thread-safe.

    Args:
        on_cluster: whether the server is a node of a cluster, where scripts wake members by
            sharded pub/sub.

    Attributes:
        names: names on the server by `Script.function`, of those that are known.
    """

    def __init__(self, *, on_cluster: bool = False) -> None:
        self._on_cluster = on_cluster
        self._verified: dict[str, str] = {}  # the same, of which the code was read
        self.names: dict[str, str] = {}  # kept while they are in doubt

    def variant(self, script: Script) -> Script:
        """Return a script as this server runs it."""
        return script_named(script.name, on_cluster=True) if self._on_cluster else script

    def function(self, script: Script) -> str:
        """Return the name under which to call a script."""
        return self.names.get(script.function, self.variant(script).function)

    def freeing_function(self, script: Script) -> str:
        """Return the function name for a call of releases alone (design 06)."""
        return f"{self.function(script)}_freeing"

    def doubt(self) -> None:
        """Require that the code of every library is read again before the next call."""
        self._verified.clear()

    async def ensure(self, client: Any, scripts: Sequence[Script]) -> None:
        """Find or load the library of each script.

        Args:
            client: asyncio's, of the server.
            scripts: what will be called.

        Raises:
            RedisError, OSError: the server could not be used.
            ConfigurationError: other code has taken each name that may be used.
        """
        for script in scripts:
            name = self._verified.get(script.function)
            if name is None or not await client.function_list(library=name):
                await self._place(client, script)

    async def _place(self, client: Any, script: Script) -> None:
        """Read the code under one name after the other, until it is this version's."""
        variant = self.variant(script)
        for number in range(1, MOST_NAMES + 1):
            name = variant.function if number == 1 else f"{variant.function}_{number}"
            if await _is_at(client, name, variant.library_named(name)):
                self._note(script, name, was_taken=number > 1)
                return
        raise ConfigurationError(
            f"the server has other code under each of the {MOST_NAMES} names that {script.function}"
            " may have, expected code of this version under one; see who may call FUNCTION LOAD"
            " there, and FUNCTION DELETE those libraries."
        )

    def _note(self, script: Script, name: str, *, was_taken: bool) -> None:
        if was_taken and self.function(script) != name:
            log.warning(
                "function_library_replaced",
                script=script.name,
                library=self.function(script),
                used_instead=name,
                remedy="see who may call FUNCTION LOAD; then FUNCTION DELETE the replaced one",
            )
        self._verified[script.function] = self.names[script.function] = name


async def _is_at(client: Any, name: str, code: str) -> bool:
    """Return whether a library holds this code, which is loaded where there is none of its name."""
    for _ in range(2):  # another member may load it meanwhile
        listed = await client.execute_command("FUNCTION LIST", "LIBRARYNAME", name, "WITHCODE")
        if found := codes_of(listed):
            return found.get(name) == code
        try:
            await client.execute_command("FUNCTION LOAD", code)
        except ResponseError as error:
            if "already exists" not in str(error):
                raise
        else:
            return True
    return False


def codes_of(found: Any) -> dict[str, str]:
    """Return the code of each library of a reply of FUNCTION LIST WITHCODE, by its name."""
    libraries = [dict(zip(one[::2], one[1::2], strict=True)) for one in found]
    return {
        one[b"library_name"].decode(): one[b"library_code"].decode(errors="replace")
        for one in libraries
    }
