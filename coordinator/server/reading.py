"""Running a shard's read-only script on its server, with the rights that a user has."""

from __future__ import annotations

from collections.abc import Sequence

from redis.exceptions import NoPermissionError, NoScriptError

from forebay.contracts.errors import CoordinatorError
from forebay.coordinator.scripts.composing import script
from forebay.coordinator.scripts.operator_library import LIBRARY, library_version
from forebay.coordinator.server.node import Node


async def run_read_only(
    node: Node, name: str, keys: Sequence[str], args: Sequence[str | int]
) -> bytes:
    """Run a read-only script of a shard and return its reply.

    A user who may evaluate no script, such as a reader, has the operators' functions run it.

    Args:
        node: the server that has the shard.
        name: the script's.
        keys: its KEYS.
        args: its ARGV.

    Raises:
        RedisError, OSError: no answer, or an error.
        CoordinatorError: the functions are another version's.
    """
    which = node.libraries.variant(script(name))
    try:
        try:
            return bytes(await node.client.evalsha_ro(which.sha, len(keys), *keys, *args))
        except NoScriptError:
            return bytes(await node.client.eval_ro(which.text, len(keys), *keys, *args))
    except NoPermissionError:
        return await _read_by_function(node, name, keys, args)


async def _read_by_function(
    node: Node, name: str, keys: Sequence[str], args: Sequence[str | int]
) -> bytes:
    """Have the operators' function run a script, if it is this version's."""
    if await node.client.fcall_ro("fb_version", 0) != library_version().encode():
        raise CoordinatorError(
            f"the functions {LIBRARY} of the server at {node.address} are another version's,"
            " and this user may run no others; ask with that version, let a member of this one"
            " join, or grant +evalsha_ro +eval_ro."
        )
    tag, what = keys[0].partition("{")[2].partition("}")[0], name.partition("/")[2]
    return bytes(await node.client.fcall_ro("fb_read", 0, tag, "", "", "", what, *args))
