"""A real server whose scripts read a simulated clock: the production Lua, but for ``lib/clock``."""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import hiredis

from forebay.contracts.errors import ConfigurationError
from forebay.contracts.identity import RequestDomain
from forebay.coordinator.keys import ShardKeys
from forebay.coordinator.scripts.composing import Script, compose
from forebay.coordinator.scripts.records import parsed
from forebay.coordinator.server.address import UnixAddress
from forebay.coordinator.server.urls import parse_url
from forebay.simulation.timeline import Timeline

CLOCK_KEY: Final = "fb:simulated:clock"
CLOCK: Final = f"""local function server_time_us()
  return tonumber(redis.call('GET', '{CLOCK_KEY}'))
end
"""
START_US: Final = 1_795_500_000_000_000
"""The server's clock when a simulation begins: the first instant of a minute."""
_READ_BYTES: Final = 1 << 20

OnMessage = Callable[[bytes], None]


class SimulatedServer:
    """One connection to a server, in RESP3: replies and published messages come over it in order.

    Every call sets the clock to the timeline's instant before it, and returns when all that the
    call published has been read. So nothing depends on how fast the machine is.

    Args:
        url: of an embedded server, which is emptied.
        timeline: the time that scripts read.

    Raises:
        ConfigurationError: the URL is of another server.
    """

    def __init__(self, url: str, timeline: Timeline) -> None:
        address = parse_url(url)
        if not isinstance(address, UnixAddress):
            raise ConfigurationError(
                f"a simulation cannot run on {url}, expected an embedded server's unix:// URL: it"
                " empties the server."
            )
        self._timeline = timeline
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.connect(str(address.path))
        self._reader = hiredis.Reader()
        self._listeners: dict[bytes, OnMessage] = {}
        self._scripts: dict[str, Script] = {}
        self._talk([("HELLO", "3"), ("CONFIG", "SET", "appendonly", "no"), ("FLUSHALL",)])

    def close(self) -> None:
        """Close the connection."""
        self._socket.close()

    def call(self, name: str, keys: Sequence[str], args: Sequence[Any]) -> bytes:
        """Run a script at the present instant; messages it published are delivered before.

        Raises:
            hiredis.ReplyError: it answered with an error.
        """
        script = self._scripts.get(name) or self._load(name)
        clock = START_US + self._timeline.now_us
        reply: bytes = self._talk(
            [
                ("SET", CLOCK_KEY, clock),
                ("FCALL", script.function, len(keys), *keys, *args),
            ]
        )[1]
        return reply

    def window(self, keys: ShardKeys, domain: RequestDomain) -> Mapping[str, str]:
        """Return a window's parts by name; empty before the window exists."""
        field = f"window_{domain}"
        return parsed(self._talk([("HGET", keys["meta"], field)])[0], "requests", field)

    def listen(self, channel: str, on_message: OnMessage) -> None:
        """Hand on what is published on a channel from now on."""
        self._listeners[channel.encode()] = on_message
        self._talk([("SUBSCRIBE", channel)])

    def unlisten(self, channel: str) -> None:
        """Listen on a channel no longer, as when a process is killed."""
        del self._listeners[channel.encode()]
        self._talk([("UNSUBSCRIBE", channel)])

    def _load(self, name: str) -> Script:
        script = self._scripts[name] = compose(name, {"lib/clock": CLOCK})
        self._talk([("FUNCTION", "LOAD", "REPLACE", script.library)])
        return script

    def _talk(self, commands: Sequence[tuple[Any, ...]]) -> list[Any]:
        """Send commands; return their replies, once a last one says that no message can follow."""
        sent = b"".join(hiredis.pack_command(command) for command in (*commands, ("PING",)))
        self._socket.sendall(sent)
        replies: list[Any] = []
        while True:
            found = self._reader.gets()
            if found is False:
                self._reader.feed(self._socket.recv(_READ_BYTES))
            elif isinstance(found, hiredis.PushNotification):
                self._take(found)
            elif isinstance(found, hiredis.ReplyError):
                raise found
            else:
                replies.append(found)
                if found == b"PONG":
                    return replies

    def _take(self, message: Sequence[bytes]) -> None:
        kind, channel, payload = message
        listener = self._listeners.get(channel)
        if kind == b"message" and listener is not None:
            listener(payload)
