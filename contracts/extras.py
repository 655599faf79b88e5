"""Optional dependencies: which modules an extra brings, and how to install it.

Every remedy that says ``pip install`` for a part of Forebay is built here, so that all of them name
what exists: there is no release on an index, so the source is named (pyproject.toml has the list of
extras).
"""

from __future__ import annotations

import importlib
import json
import tomllib
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, distribution
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote, urlsplit

from forebay.contracts.errors import ConfigurationError

_RUN: Final = ("httpx2", "jinja2", "jsonschema_rs", "rich")
_MOCK: Final = ("starlette", "uvicorn")
MODULES: Final[Mapping[str, tuple[str, ...]]] = {
    "demo": (*_RUN, *_MOCK, "matplotlib"),
    "mock": _MOCK,
    "ops": ("prometheus_client", *_MOCK),
    "parquet": ("pyarrow",),
    "proxy": ("httpx2", *_MOCK),
    "run": _RUN,
    "watch": ("watchfiles",),
}
"""Extra of a command -> the modules without which the command cannot run."""


def missing_modules(extra: str) -> dict[str, ImportError]:
    """Import what a command needs of an extra; return what cannot be imported, and why."""
    missing = {}
    for module in MODULES[extra]:
        try:
            importlib.import_module(module)
        except ImportError as error:
            missing[module] = error
    return missing


def require_extra(extra: str, needed_by: str) -> None:
    """Check that a command's extra is installed.

    Args:
        extra: a key of `MODULES`.
        needed_by: the command, for the message.

    Raises:
        ConfigurationError: a module cannot be imported; the message names all of them.
    """
    missing = missing_modules(extra)
    if missing:
        first = next(iter(missing.values()))
        raise ConfigurationError(
            f"{needed_by} needs {', '.join(missing)}, expected to be importable here ({first});"
            f" run {how_to_install(extra)}."
        ) from first


def how_to_install(extra: str) -> str:
    """Return the command that adds an extra to this installation, and where to run it."""
    return _how_to_install(extra, checkout=_checkout(), origin=_origin())


def _how_to_install(extra: str, *, checkout: Path | None, origin: str | None) -> str:
    if checkout is not None:
        return f"pip install '.[{extra}]' in {checkout}"
    if origin is not None:
        return f"pip install 'forebay[{extra}] @ {origin}'"
    return f"pip install '.[{extra}]' in a checkout of Forebay"


def _checkout() -> Path | None:
    """Return the source folder that this process runs from, or was installed from, if any."""
    spec = find_spec("forebay")
    here = Path(spec.origin).resolve().parents[1] if spec and spec.origin else None
    noted = _file_path(str(_direct_url().get("url", "")))
    return next((folder for folder in (here, noted) if folder and _is_source(folder)), None)


def _origin() -> str | None:
    """Return the archive or repository that this was installed from, as pip takes it."""
    direct = _direct_url()
    url = str(direct.get("url", ""))
    path = _file_path(url)
    if not url or (path is not None and not path.is_file()):
        return None
    repository = direct.get("vcs_info")
    if not isinstance(repository, dict):
        return url
    return f"{repository.get('vcs')}+{url}@{repository.get('commit_id')}"


def _direct_url() -> Mapping[str, Any]:
    """Return what pip noted of the source of this installation (PEP 610), or nothing."""
    try:
        noted = distribution("forebay").read_text("direct_url.json")
        found = json.loads(noted or "{}")
    except (PackageNotFoundError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _file_path(url: str) -> Path | None:
    parts = urlsplit(url)
    return Path(unquote(parts.path)) if parts.scheme == "file" else None


def _is_source(folder: Path) -> bool:
    """Whether a folder holds Forebay's own pyproject.toml; site-packages may hold another's."""
    try:
        project = tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return bool(project.get("project", {}).get("name") == "forebay")
