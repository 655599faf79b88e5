"""Explains every subject of a name, in all shards of a server (design 07, *Command line*)."""

from __future__ import annotations

from urllib.parse import unquote

from forebay.contracts.errors import ConfigurationError, CoordinatorUnavailable, ForebayError
from forebay.contracts.explanations import Explanation, Explanations, Unexplained
from forebay.coordinator.keys import POOL_TAG
from forebay.coordinator.requests import explaining as requests
from forebay.coordinator.requests.snapshots import provider_model_of
from forebay.coordinator.runs.explaining import explain_run
from forebay.coordinator.server_connection import ServerConnection
from forebay.coordinator.tasks import explaining as tasks
from forebay.coordinator.tasks.blocking import PoolFacts


async def explain(connection: ServerConnection, name: str) -> Explanations:
    """Return why a task, waiter, lease, group, run, pool or provider/model does not move.

    Each shard is read in one instant by one read-only script; writes nothing. A shard that is
    damaged, or that another program or version wrote, hides no other.

    Args:
        connection: connection to the server; left open.
        name: as it was given, or as ``forebay snapshot`` and redis-cli show it. Each subject
            that has the name is explained.

    Raises:
        ForebayError: the server could not be used.
    """
    found: list[Explanation] = []
    problems: list[Unexplained] = []
    names: list[str] = []
    for tag in await connection.shards():
        names.append(tag)
        try:
            explained, groups = await _explain_in(connection, tag, name)
        except CoordinatorUnavailable:
            raise
        except (ForebayError, ValueError, LookupError, TypeError) as error:
            says = str(error) if isinstance(error, ForebayError) else _foreign(error)
            problems.append(Unexplained(shard=tag, says=says))
        else:
            found += explained
            names += groups
    return Explanations(
        explanations=tuple(found), problems=tuple(problems), names=tuple(dict.fromkeys(names))
    )


def _foreign(error: Exception) -> str:
    """Return why decoding failed: what lies in the shard's keys is another program's."""
    what = " ".join(str(error).split())[:200]
    return f"a key holds what this version does not write ({type(error).__name__}: {what})"


async def _explain_in(
    connection: ServerConnection, tag: str, name: str
) -> tuple[list[Explanation], list[str]]:
    """Explain what has a name in one shard; and return the names of its groups."""
    if tag.startswith(POOL_TAG):
        pool = unquote(tag.removeprefix(POOL_TAG))
        in_line = await tasks.read_facts(connection, pool, name)
        return in_pool(in_line, name), list(in_line.rows)
    if (key := provider_model_of(tag)) is None:
        raise ConfigurationError("it is not the name of a shard that this version knows")
    facts = await requests.read_facts(connection, key, name)
    groups = [
        group.group for window in facts.snapshot.domains.values() for group in window.waiting_groups
    ]
    return requests.explain_in_shard(facts, name), groups


def in_pool(facts: PoolFacts, name: str) -> list[Explanation]:
    """Explain each task, run or group of a pool that has a name, or the pool itself; pure."""
    return [*tasks.explain_in_pool(facts, name), *explain_run(facts, name)]
