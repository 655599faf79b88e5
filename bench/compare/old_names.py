"""Lets a bench of today run on an older tree, whose modules had other names.

Trees from before ``forebay.coordinator`` install ``contracts``, ``coordinator``, ``lua`` and
``workers`` beside ``forebay``; later ones have modules where they stood before the folders became
packages. Each environment of a side gets a copy of this module and a ``.pth`` file that imports
it, so that each of its processes finds the old modules under the new names. What a tree has under
the new name itself is taken.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any, Final

PREFIX: Final = "forebay."
OLD: Final = ("contracts", "coordinator", "lua", "workers")

PACKAGES: Final = ("forebay.coordinator.server", "forebay.workers.arq")
"""Folders that older trees have not."""
MOVED: Final = {
    "forebay.contracts.outcomes": ("forebay.contracts.requests", "forebay.contracts.tasks"),
    "forebay.coordinator.server.address": ("forebay.coordinator.address",),
    "forebay.coordinator.server.connections": ("forebay.coordinator.connections",),
    "forebay.coordinator.server.embedded": ("forebay.coordinator.embedded",),
    "forebay.coordinator.server.embedded_files": ("forebay.coordinator.embedded_files",),
    "forebay.coordinator.server_connection": ("forebay.coordinator.server_connection",),
    "forebay.workers.arq.open_worker": ("forebay.workers.arq.worker", "forebay.workers.arq_worker"),
    "forebay.workers.arq.pool_redis": ("forebay.workers.arq.pool", "forebay.workers.arq_redis"),
    "forebay.workers.arq.serialization": ("forebay.workers.serialization",),
}
"""Modules that the bench imports -> where their names were, in any older tree."""
RENAMED: Final = {"ServerConnection": "ServerConnection"}
"""Names that the bench imports -> what older trees called them."""


class OldNames(MetaPathFinder, Loader):
    """Finds ``forebay.<old>`` and loads ``<old>`` in its place, where there is such a package."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        del path, target
        old = fullname.removeprefix(PREFIX)
        if old == fullname or old.partition(".")[0] not in OLD or not _is_there(old):
            return None
        return ModuleSpec(fullname, self)

    def exec_module(self, module: ModuleType) -> None:
        name = module.__name__
        # the import system takes what stands in sys.modules once a module was executed
        sys.modules[name] = importlib.import_module(name.removeprefix(PREFIX))


class MovedModules(MetaPathFinder, Loader):
    """Finds a module of `MOVED` that a tree has not, and looks its names up where they were."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        del path, target
        if fullname in PACKAGES:
            return ModuleSpec(fullname, self, is_package=True)
        return ModuleSpec(fullname, self) if fullname in MOVED else None

    def exec_module(self, module: ModuleType) -> None:
        name = module.__name__
        homes = [importlib.import_module(home) for home in MOVED.get(name, ()) if _is_there(home)]

        def found(attribute: str) -> Any:
            for home in homes:
                for former in (attribute, RENAMED.get(attribute, attribute)):
                    if hasattr(home, former):
                        return getattr(home, former)
            raise AttributeError(f"module {name!r} has no attribute {attribute!r}")

        module.__getattr__ = found  # type: ignore[method-assign]


def _is_there(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:  # its package is not
        return False


# before the others: the path of `contracts`, once that is `forebay.contracts` too, would lead them
# to a second copy of its modules
sys.meta_path.insert(0, OldNames())
# after the others: what a tree has is taken
sys.meta_path.append(MovedModules())
