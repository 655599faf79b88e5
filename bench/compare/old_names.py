"""Lets code that imports ``forebay.coordinator`` run on a tree from before it had that name.

Such trees install ``contracts``, ``coordinator``, ``lua`` and ``workers`` beside ``forebay``. The
environment that such a tree is installed in gets a copy of this module and a ``.pth`` file that
imports it, so that each of its processes finds the old packages under the new names. Both names
lead to one module.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Final

PREFIX: Final = "forebay."
OLD: Final = ("contracts", "coordinator", "lua", "workers")


class OldNames(MetaPathFinder, Loader):
    """Finds ``forebay.<old>`` and loads ``<old>`` in its place."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        del path, target
        old = fullname.removeprefix(PREFIX)
        if old == fullname or old.partition(".")[0] not in OLD:
            return None
        return ModuleSpec(fullname, self)

    def exec_module(self, module: ModuleType) -> None:
        name = module.__name__
        # the import system takes what stands in sys.modules once a module was executed
        sys.modules[name] = importlib.import_module(name.removeprefix(PREFIX))


# before the others: the path of `contracts`, once that is `forebay.contracts` too, would lead them
# to a second copy of its modules
sys.meta_path.insert(0, OldNames())
