"""The file of `forebay apply`: caps of provider/models, and limits and states of pools."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from forebay.contracts.settings import LARGEST_CAP
from forebay.coordinator.wanted_settings import NONE, Setting
from forebay.workers.runs.workflow_places import Mistakes, Place, suggestion
from forebay.workers.runs.workflow_reading import read_document

_STATES: Final = ("open", "paused", "draining")


def read_settings_file(path: Path) -> dict[Setting, str]:
    """Return the settings of a file, each with its value as text; ``none`` removes a bound.

    Raises:
        WorkflowError: all mistakes, a sentence each, with file, line, place and remedy.
        ConfigurationError: YAML, and PyYAML is not installed.
    """
    mistakes = Mistakes(read_document(path))
    wanted: dict[Setting, str] = {}
    top = _Table(mistakes, (), mistakes.file.document, ("caps", "pools"))
    caps = top.table("caps")
    for name in caps.names():
        if name.count("/") < 1 or not all(name.split("/", 1)):
            caps.fault(name, 'expected "provider/model" as the key; write both')
        elif text := caps.number(name, 1):
            wanted[Setting(kind="cap", of=name)] = text
    pools = top.table("pools")
    for pool in pools.names():
        of_pool = pools.table(pool, ("state", "limits"))
        if "state" in of_pool.value:
            if of_pool.value["state"] in _STATES:
                wanted[Setting(kind="state", of=pool)] = of_pool.value["state"]
            else:
                of_pool.fault("state", f"expected one of {', '.join(_STATES)}; use one")
        limits = of_pool.table("limits")
        for resource in limits.names():
            if text := limits.number(resource, 0):
                wanted[Setting(kind="limit", of=pool, resource=resource)] = text
    if not wanted and not mistakes:
        mistakes.add((), "sets nothing; write [caps] or [pools.NAME]")
    mistakes.raise_any()
    return wanted


class _Table:
    """A table of the file; notes a value that is no table, and each unknown key."""

    def __init__(
        self, mistakes: Mistakes, place: Place, value: Any, known: tuple[str, ...] = ()
    ) -> None:
        self._mistakes, self._place = mistakes, place
        self.value: dict[str, Any] = value if isinstance(value, dict) else {}
        if not isinstance(value, dict):
            mistakes.add(place, "expected a table of keys and values; write one")
        for name in self.value if known else ():
            if name not in known:
                self.fault(name, f"unknown key; {suggestion(name, known)}")

    def names(self) -> list[str]:
        return list(self.value)

    def fault(self, name: str, problem: str) -> None:
        self._mistakes.add((*self._place, name), problem)

    def table(self, name: str, known: tuple[str, ...] = ()) -> _Table:
        return _Table(self._mistakes, (*self._place, name), self.value.get(name, {}), known)

    def number(self, name: str, least: int) -> str:
        """Return a bound as text; "" where the file holds none, which is noted."""
        value = self.value[name]
        if value == NONE:
            return NONE
        if isinstance(value, int) and not isinstance(value, bool) and least <= value <= LARGEST_CAP:
            return str(value)
        self.fault(name, f'expected a whole number from {least} on, or "none"; correct it')
        return ""
