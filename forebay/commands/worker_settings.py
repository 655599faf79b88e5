"""Loads the settings class, log dictionary and allowlist of `forebay worker`'s arguments."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from arq.utils import import_string

from forebay.contracts.errors import ConfigurationError
from forebay.contracts.extras import missing_modules, require_extra
from forebay.coordinator.logs import Logger
from forebay.workers.arq.settings import settings_of

if TYPE_CHECKING:
    from forebay.workers.runs.allowlist import Allowlist  # with an extra

log = Logger("forebay.worker")


def imported(argument: str, name: str, expected: str) -> Any:
    """Import the object that an argument names; modules of the current folder are found, as in arq.

    They hide no installed package: the folder is searched last.

    Args:
        argument: for the message, such as ``SETTINGS``.
        name: dotted.
        expected: for the message.

    Raises:
        ConfigurationError: it cannot be imported.
    """
    try:
        folder = str(Path.cwd())
        if folder not in sys.path:
            sys.path.append(folder)
        return import_string(name)
    except Exception as error:  # the module's own code may raise anything
        why = str(error) if isinstance(error, ImportError) else f"{type(error).__name__}: {error}"
        raise ConfigurationError(
            f"{argument} {name!r} cannot be imported ({why}); expected {expected}, from the folder"
            " that holds app.py."
        ) from error


def settings_named(name: str) -> dict[str, Any]:
    """Import an arq settings class and return what it sets.

    Raises:
        ConfigurationError: it cannot be imported, or sets what a pool decides.
    """
    found = imported("SETTINGS", name, "a class such as app.WorkerSettings")
    if not isinstance(found, dict) and not hasattr(found, "__dict__"):  # what arq takes
        raise ConfigurationError(
            f"SETTINGS {name!r} is of type {type(found).__name__}, expected a class such as arq is"
            " given; name the class."
        )
    return settings_of(found)


def allowlist_of(
    env: Sequence[str], paths: Sequence[str], hosts: Sequence[str], code: Sequence[str]
) -> Allowlist | None:
    """Return the worker's allowlist; None without the extra that cells need.

    Raises:
        ConfigurationError: an option is of another form, or there is one and no extra.
    """
    if env or paths or hosts or code:
        require_extra("run", "--allow-..., which is for the cells of runs,")
    elif missing_modules("run"):
        return None
    from forebay.workers.runs.allowlist import Allowlist

    allowed = Allowlist.of(env=env, paths=paths, hosts=hosts, code=code, environ=os.environ)
    for name, bound in allowed.variables.items():
        if bound is None and len(allowed.hosts) > 1:
            log.warning(
                "variable_for_every_host",
                variable=name,
                hosts=sorted(map(str, allowed.hosts)),
                remedy=f"--allow-env {name}=HOST ties it to the host that it is for",
            )
    return allowed
