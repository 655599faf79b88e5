"""Function libraries as another application, or a faulty member, may leave them on a server."""

from __future__ import annotations

from typing import Final

import redis

from forebay.coordinator.scripts.composing import Script

OTHER_CODE: Final = {
    "an error": "function() return redis.error_reply('ERR boom') end",
    "a number": "function() return 7 end",
    "nothing": "function() return nil end",
    "a text": "function() return 'no reply of ours' end",
    "a crash": "function() return nothing_there.at_all end",
}
"""Functions that answer something else than a script of ours, by what they answer."""


def replace_library(
    client: redis.Redis, script: Script, answer: str = "an error", name: str | None = None
) -> str:
    """Replace the library of a script by name, and return the code that is there now."""
    name = name or script.function
    functions = (name, f"{name}_freeing")
    registered = "".join(
        f"redis.register_function{{function_name='{function}', callback={OTHER_CODE[answer]},"
        " flags={'allow-oom'}}\n"
        for function in functions
    )
    code = f"#!lua name={name}\n{registered}"
    client.function_load(code, replace=True)
    return code


def code_on(client: redis.Redis, name: str) -> str | None:
    """Return the code of a library, None where there is none."""
    for found in client.function_list(library=name, withcode=True):
        return str(dict(zip(found[::2], found[1::2], strict=True))[b"library_code"].decode())
    return None
