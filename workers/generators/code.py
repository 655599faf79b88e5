"""Finding and importing the user's code that a workflow names.

Rules: design 05, *Generators*, ADR 0014.
"""

from __future__ import annotations

import importlib
import sys
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Final

from forebay.contracts.errors import WorkflowError

ENTRY_POINTS: Final = "forebay.generators"
"""Group of the entry points that name plugins."""


def load_target(target: str, folder: Path | None = None) -> Any:
    """Import the object that ``module:name`` or an entry point names.

    Args:
        target: as the workflow says it.
        folder: of the workflow's file, looked in after everything that is installed.

    Raises:
        WorkflowError: it cannot be found or imported; says where it was looked for.
    """
    if ":" not in target:
        found = [point for point in entry_points(group=ENTRY_POINTS) if point.name == target]
        if not found:
            known = ", ".join(sorted(entry_points(group=ENTRY_POINTS).names)) or "none"
            raise WorkflowError(
                f"no plugin {target!r} is installed, expected an entry point in {ENTRY_POINTS}:"
                f" {known}; install it, or write module:name."
            )
        target = f"{found[0].module}:{found[0].attr}"
    module, _, name = target.partition(":")
    for place in (str(Path.cwd()), str(folder) if folder else ""):
        if place and place not in sys.path:
            sys.path.append(place)
    try:
        found_here: Any = importlib.import_module(module)
        for part in name.split("."):
            found_here = getattr(found_here, part)
    except (Exception, SystemExit) as error:  # an import may raise anything; a script may exit
        places = dict.fromkeys(map(str, (Path.cwd(), *([folder] if folder else []))))
        raise WorkflowError(
            f"{target} cannot be imported ({type(error).__name__}: {error}), expected it in an"
            f" installed package or {' or '.join(places)}; correct the name or the code, or put it"
            " there."
        ) from error
    if not callable(found_here):
        raise WorkflowError(
            f"{target} is of type {type(found_here).__name__}, expected a function or a class;"
            " name one."
        )
    return found_here


def module_of(target: str) -> str:
    """Return the argument of ``--allow-code`` for a target: its module or its plugin's name."""
    return target.partition(":")[0]
