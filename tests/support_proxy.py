"""A proxy between a member and its server that loses, keeps and repeats what it is told to.

It knows a batch by its operations' words, whatever command carries it, so that it says nothing of
how a channel is built.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
from collections import deque
from collections.abc import AsyncIterator, Coroutine
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final, Self

import hiredis

from forebay.coordinator.server.address import UnixAddress
from forebay.coordinator.server.embedded_files import make_runtime_dir
from forebay.coordinator.server.urls import parse_url
from tests.support_batches import Batch, Exchange, Reply, read_batch

_SUBSCRIBE: Final = {b"SUBSCRIBE", b"SSUBSCRIBE"}
_CHUNK: Final = 65536


class Fault(StrEnum):
    """A fault that hits one batch."""

    CUT_BEFORE = "cut before the server acted"
    CUT_AFTER = "cut after it acted, before its reply"
    HOLD = "the reply is held until it is let go"


class Trap:
    """A fault that waits for the next batch with an operation.

    Attributes:
        batch: the batch that it hit.
        sprung: set once it has hit one.
        let_go: set by the test to let a held reply go.
    """

    def __init__(self, word: str, fault: Fault) -> None:
        self.word = word
        self.fault = fault
        self.batch: Batch | None = None
        self.sprung = asyncio.Event()
        self.let_go = asyncio.Event()


class Loss:
    """A message that is to be lost.

    Attributes:
        happened: set once it was.
    """

    def __init__(self, word: str) -> None:
        self.word = word
        self.happened = asyncio.Event()


@dataclass(eq=False, slots=True, kw_only=True)
class _Connection:
    client: tuple[asyncio.StreamReader, asyncio.StreamWriter]
    server: tuple[asyncio.StreamReader, asyncio.StreamWriter]
    asked: deque[Batch | None] = field(default_factory=deque)
    channels: set[bytes] = field(default_factory=set)

    def cut(self) -> None:
        self.client[1].transport.abort()


class FaultyProxy:
    """Listens on a unix socket of its own and passes on to a server, with faults at command.

    Attributes:
        url: where it listens.
        exchanges: the batches that the server answered, in order; a repeat is one more.
        subscriptions: how many channels were ever subscribed to through it.
        connection_count: how many connections it ever took.
    """

    def __init__(self, server_url: str) -> None:
        address = parse_url(server_url)
        assert isinstance(address, UnixAddress)
        self._server_path = address.path
        self._folder = make_runtime_dir()
        self._path = str(self._folder / "proxy.sock")
        self.url = f"unix://{self._path}"
        self.exchanges: list[Exchange] = []
        self.subscriptions = 0
        self.connection_count = 0
        self._traps: list[Trap] = []
        self._connections: set[_Connection] = set()
        self._serving: set[asyncio.Task[None]] = set()
        self._listener: asyncio.Server | None = None
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._muted = False
        self._losses: deque[Loss] = deque()
        self._hangs_up = False
        self._refusal = b""
        self._refuses_all = False
        self._subscribers_refused = False

    async def __aenter__(self) -> Self:
        await self.accept()
        return self

    async def __aexit__(self, *_: object) -> None:
        self.refuse()
        self.flow()
        for task in list(self._serving):
            task.cancel()
        await asyncio.gather(*self._serving, return_exceptions=True)
        shutil.rmtree(self._folder)

    # -- faults

    def trap(self, word: str, fault: Fault) -> Trap:
        """Inject a fault into the next batch with an operation of this name."""
        trap = Trap(word, fault)
        self._traps.append(trap)
        return trap

    def refuse(self) -> None:
        """Cut every connection and take no new ones."""
        if self._listener is not None:
            self._listener.close()
            self._listener = None
        self.cut_all()

    async def accept(self) -> None:
        """Take connections, again, and serve them."""
        self._hangs_up = False
        self._refusal = b""
        self._refuses_all = False
        if self._listener is None:
            self._listener = await asyncio.start_unix_server(self._accepted, self._path)

    def stall(self) -> None:
        """Take connections and requests, and pass nothing on until ``flow``."""
        self._flowing.clear()

    def flow(self) -> None:
        """Pass on again, what gathered meanwhile first: it arrives late."""
        self._flowing.set()

    def hang_up(self) -> None:
        """Take connections, and cut each at its first batch or subscription, until ``accept``."""
        self._hangs_up = True
        self.cut_all()

    def answer_with(self, refusal: str) -> None:
        """Answer every batch with an error, as if it came from the server, until ``accept``."""
        self._refusal = b"-%b\r\n" % refusal.encode()

    def answer_all_with(self, refusal: str) -> None:
        """Answer every command with an error, until ``accept``."""
        self.answer_with(refusal)
        self._refuses_all = True

    def mute_pushes(self) -> None:
        """Lose every message to a subscriber from now on."""
        self._muted = True

    def lose_message(self, word: str) -> Loss:
        """Lose the next message to a subscriber that holds a word, with what travels beside it."""
        loss = Loss(word)
        self._losses.append(loss)
        return loss

    def refuse_subscribers(self) -> None:
        """Cut subscribers' connections, and cut them again until ``accept_subscribers``."""
        self._subscribers_refused = True
        self.cut_subscribers()

    def accept_subscribers(self) -> None:
        """Let subscribers come back."""
        self._subscribers_refused = False

    def cut_subscribers(self) -> None:
        """Cut subscribers' connections; they may come back at once."""
        for connection in self._connections:
            if connection.channels:
                connection.cut()

    async def deliver(self, batch: Batch) -> Reply:
        """Bring a batch to the server over a connection of its own; return the server's reply."""
        reader, writer = await asyncio.open_unix_connection(self._server_path)
        replies = hiredis.Reader()
        try:
            command: Any = batch.command
            writer.write(hiredis.pack_command(command))
            while (reply := replies.gets()) is False:
                replies.feed(await reader.read(_CHUNK))
            return reply
        finally:
            writer.close()
            await writer.wait_closed()

    # -- what was seen

    def replies_to(self, batch: Batch) -> list[Reply]:
        """Return what the server answered to a batch and to its repeats."""
        return [
            seen.reply
            for seen in self.exchanges
            if (seen.batch.member_id, seen.batch.number) == (batch.member_id, batch.number)
        ]

    # -- passing on

    def cut_all(self) -> None:
        """Cut every connection; new ones are taken."""
        for connection in self._connections:
            connection.cut()

    def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connection_count += 1
        task = asyncio.get_running_loop().create_task(self._serve(reader, writer))
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async with _closing(writer):
            server = await asyncio.open_unix_connection(self._server_path)
            async with _closing(server[1]):
                connection = _Connection(client=(reader, writer), server=server)
                self._connections.add(connection)
                try:
                    await _first_of(self._pass_requests(connection), self._pass_replies(connection))
                finally:
                    self._connections.discard(connection)

    async def _pass_requests(self, connection: _Connection) -> None:
        requests = hiredis.Reader()
        while data := await connection.client[0].read(_CHUNK):
            await self._flowing.wait()
            requests.feed(data)
            while (command := requests.gets()) is not False:
                batch = read_batch(command)
                subscribes = command[0].upper() in _SUBSCRIBE
                if self._hangs_up and (batch is not None or subscribes):
                    return
                if self._refusal and (batch is not None or self._refuses_all):
                    connection.client[1].write(self._refusal)
                    continue
                if self._sprung(batch, {Fault.CUT_BEFORE}):
                    return
                if subscribes:
                    if self._subscribers_refused:
                        return
                    connection.channels.update(command[1:])
                    self.subscriptions += len(command) - 1
                connection.asked.append(batch)
                connection.server[1].write(hiredis.pack_command(tuple(command)))

    async def _pass_replies(self, connection: _Connection) -> None:
        replies, raw = hiredis.Reader(), b""
        while data := await connection.server[0].read(_CHUNK):
            await self._flowing.wait()
            replies.feed(data)
            raw += data
            seen = []
            while (reply := replies.gets()) is not False:
                seen.append(reply)
            for reply in seen:
                trap = None if connection.channels else self._answered(connection, reply)
                if trap is not None and trap.fault is Fault.CUT_AFTER:
                    return
                if trap is not None:
                    await trap.let_go.wait()
            if seen:
                if not (connection.channels and self._is_lost(seen)):
                    connection.client[1].write(raw)
                raw = b""

    def _is_lost(self, replies: list[Reply]) -> bool:
        """Whether what came for a subscriber is not to arrive."""
        messages = [reply for reply in replies if reply[0] == b"message"]
        for loss in self._losses:
            if any(loss.word.encode() in text for _kind, _channel, text in messages):
                self._losses.remove(loss)
                loss.happened.set()
                return True
        return self._muted and bool(messages)

    def _answered(self, connection: _Connection, reply: Reply) -> Trap | None:
        batch = connection.asked.popleft()
        if batch is None or _is_unknown_script(reply):
            return None
        self.exchanges.append(Exchange(batch=batch, reply=reply))
        return self._sprung(batch, {Fault.CUT_AFTER, Fault.HOLD})

    def _sprung(self, batch: Batch | None, faults: set[Fault]) -> Trap | None:
        for trap in self._traps:
            if batch is not None and trap.fault in faults and trap.word in batch.words:
                self._traps.remove(trap)
                trap.batch = batch
                trap.sprung.set()
                return trap
        return None


def _is_unknown_script(reply: Reply) -> bool:
    """Whether nothing was carried out, as the server must be told the script first."""
    return isinstance(reply, hiredis.ReplyError) and str(reply).startswith(
        ("NOSCRIPT", "ERR Function not found")
    )


@contextlib.asynccontextmanager
async def _closing(writer: asyncio.StreamWriter) -> AsyncIterator[None]:
    try:
        yield
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def _first_of(*pumps: Coroutine[Any, Any, None]) -> None:
    """Run both until one ends: then its connection is over; a peer that went away is no error."""
    tasks = [asyncio.ensure_future(pump) for pump in pumps]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        for ended in await asyncio.gather(*tasks, return_exceptions=True):
            if isinstance(ended, Exception) and not isinstance(ended, OSError):
                raise ended
