"""Ways in which a server loses keys of a shard, or parts of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

import redis

from forebay.coordinator.keys import ShardKeys

RUN_KEY: Final = "fb:test:run_id"
LISTENING_KEY: Final = "fb:test:listening"
SCHEMA: Final = b"schema"
"""Another schema version is told as such, whatever it is."""
GARBAGE: Final = ("", "x", "|||||", 'a"b', "x|y", "\0")


@dataclass(slots=True)
class LossyServer:
    """The server of one shard, whose run id and listeners a test sets.

    Attributes:
        restarts: how often the server has started anew.
        kept: an older state of the shard, as an RDB file would hold it: the dump of each key.
    """

    client: redis.Redis
    keys: ShardKeys
    restarts: int = 0
    kept: dict[str, bytes] = field(default_factory=dict)

    def listen(self, member: str) -> None:
        self.client.sadd(LISTENING_KEY, member)

    def stop_listening(self, *members: str) -> None:
        if members:
            self.client.srem(LISTENING_KEY, *members)

    @property
    def run_id(self) -> str:
        return f"run{self.restarts}" if self.restarts else "run"

    def restart(self) -> None:
        """Start the server anew with its data intact; nobody listens until it connects again."""
        self.restarts += 1
        self.client.set(RUN_KEY, self.run_id)
        self.client.delete(LISTENING_KEY)

    @property
    def listeners(self) -> set[str]:
        return {name.decode() for name in self.client.smembers(LISTENING_KEY)}

    def flush(self) -> None:
        self.client.delete(*self.keys.all)

    def save(self) -> None:
        """Keep the present state for a later `restore`."""
        dumps = {key: self.client.dump(key) for key in self.keys.all}
        self.kept = {key: dump for key, dump in dumps.items() if dump is not None}

    def restore(self) -> None:
        """Replace the state by the one that was saved last."""
        self.flush()
        for key, dump in self.kept.items():
            self.client.restore(key, 0, dump)

    def delete(self, kind: str) -> None:
        self.client.delete(self.keys[kind])

    def mistype(self, kind: str) -> None:
        """Let another application write a string in the place of a key."""
        self.client.set(self.keys[kind], "garbage")

    def garble(self, kind: str, pick: int, garbage: str) -> str:
        """Overwrite an entry of a hash, or lose one of a sorted set.

        Returns:
            The hash's field, or the member of the sorted set; empty where there is none.
        """
        key = self.keys[kind]
        found = self.client.type(key)
        if found == b"hash":
            entries = sorted(set(self.client.hkeys(key)) - {SCHEMA})
            entry = entries[pick % len(entries)]
            self.client.hset(key, entry, garbage)
        elif found == b"zset":
            entries = self.client.zrange(key, 0, -1)
            entry = entries[pick % len(entries)]
            self.client.zrem(key, entry)
        else:
            return ""
        return str(entry.decode())
