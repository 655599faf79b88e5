"""Threads on the Anthropic SDK that share one limit with all copies of this program.

Each answer streams, and holds its lease until it is read to its end.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

from anthropic import Anthropic

import forebay

REDIS_URL = os.environ.get("REDIS_URL", "redis://127.0.0.1:6379")


def ask(client: Anthropic, question: str) -> str:
    """Ask once and read the stream; nothing here knows of a limit."""
    with client.messages.stream(
        model="mock-chat", max_tokens=64, messages=[{"role": "user", "content": question}]
    ) as stream:
        return stream.get_final_text()


def main() -> None:
    """Ask from 20 threads and say how many were answered."""
    with (
        Anthropic(
            http_client=forebay.http_client(REDIS_URL, max_parallel_requests=8, sync=True)
        ) as client,
        ThreadPoolExecutor(20) as threads,
    ):
        questions = [f"What does reservoir {number} feed?" for number in range(40)]
        answers = list(threads.map(lambda question: ask(client, question), questions))
    print(f"{len([answer for answer in answers if answer])} answers")


if __name__ == "__main__":
    main()
