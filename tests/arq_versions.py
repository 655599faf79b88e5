"""Two versions of an arq application, of which the older one lacks a function."""

from __future__ import annotations

import asyncio
from typing import Any, ClassVar

from arq.worker import func


def _says(version: str, name: str) -> Any:
    async def run(_ctx: dict[str, Any], _number: int) -> str:
        await asyncio.sleep(0.005)
        return version

    return func(run, name=name)


class OldSettings:
    """What ``forebay worker tests.arq_versions.OldSettings`` runs."""

    functions: ClassVar = (_says("old", "older"),)
    poll_delay = 0.05


class NewSettings:
    """What ``forebay worker tests.arq_versions.NewSettings`` runs."""

    functions: ClassVar = (_says("new", "older"), _says("new", "newer"))
    poll_delay = 0.05
