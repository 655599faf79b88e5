"""bullmq, which is JavaScript: this process gives orders to one of node (``bullmq_jobs.mjs``)."""

from __future__ import annotations

import asyncio
import json
import shutil
from asyncio.subprocess import PIPE, Process
from collections import deque
from pathlib import Path
from typing import Any, Final, Self

from bench.peers.job_library import CONCURRENCY, Running, Submitter

FOLDER: Final = Path(__file__).parents[2] / ".venv" / "apart" / "bullmq"
"""The folder in which ``make bench-peers`` installs bullmq."""
PROGRAM: Final = Path(__file__).with_suffix(".mjs")
LONGEST_ANSWER: Final = 2**24
"""The instants of 100,000 jobs are a line of about 2 MB."""


class NodeProcess:
    """A process of node: each order is a line, and so is each answer, in the same order."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self._asked: deque[asyncio.Future[Any]] = deque()
        self._reader = asyncio.create_task(self._read())

    @classmethod
    async def start(cls, *command: str) -> Self:
        """Start a process; return once it has said that it is ready."""
        node = cls(
            await asyncio.create_subprocess_exec(
                *command, stdin=PIPE, stdout=PIPE, limit=LONGEST_ANSWER
            )
        )
        await node._next_answer()
        return node

    async def ask(self, order: str) -> Any:
        """Give an order and return its answer.

        Raises:
            RuntimeError: the process ended instead of answering.
        """
        assert self._process.stdin is not None
        self._process.stdin.write(f"{order}\n".encode())
        return await self._next_answer()

    async def stop(self) -> Any:
        """Let the process end; return its last answer."""
        answer = await self.ask("stop")
        await self._reader
        return answer

    def _next_answer(self) -> asyncio.Future[Any]:
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._asked.append(answer)
        if self._reader.done():
            self._refuse_all()
        return answer

    async def _read(self) -> None:
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            self._asked.popleft().set_result(json.loads(line))
        if self._process.stdin is not None:
            self._process.stdin.close()
        await self._process.wait()
        self._refuse_all()

    def _refuse_all(self) -> None:
        while self._asked:
            self._asked.popleft().set_exception(
                RuntimeError("node ended instead of answering; its error is above.")
            )


class _NodeSubmitter:
    def __init__(self, node: NodeProcess) -> None:
        self._node = node

    async def submit(self, _number: int) -> float:
        return float(await self._node.ask("submit"))

    async def close(self) -> None:
        await self._node.stop()


class _NodeWorker:
    def __init__(self, node: NodeProcess) -> None:
        self._node = node

    async def count(self) -> int:
        return int(await self._node.ask("count"))

    async def stop(self) -> list[float]:
        return list(await self._node.stop())


class Bullmq:
    """bullmq with ioredis, which keeps completed jobs."""

    name = "bullmq"
    said = "bullmq"

    def version(self) -> str | None:
        package = FOLDER / "node_modules" / "bullmq" / "package.json"
        if shutil.which("node") is None or not package.is_file():
            return None
        return str(json.loads(package.read_text())["version"])

    async def submitter(self, url: str) -> Submitter:
        return _NodeSubmitter(await self._node(url, "submitter"))

    async def start(self, url: str) -> Running:
        return _NodeWorker(await self._node(url, "worker"))

    def results(self, client: Any) -> int:
        return int(client.zcard("bull:bench:completed"))

    @staticmethod
    async def _node(url: str, role: str) -> NodeProcess:
        command = ("node", str(PROGRAM), str(FOLDER), url, role, str(CONCURRENCY))
        return await NodeProcess.start(*command)
