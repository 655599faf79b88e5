"""A program on the OpenAI SDK whose copies share one limit: 40 questions, all at once.

Started any number of times, on any number of machines, it has at most 8 calls under way in all.
"""

from __future__ import annotations

import asyncio
import os

from openai import AsyncOpenAI

import forebay

REDIS_URL = os.environ.get("REDIS_URL", "redis://127.0.0.1:6379")


async def ask(client: AsyncOpenAI, question: str) -> str:
    """Ask once; nothing here knows of a limit."""
    answer = await client.chat.completions.create(
        model="mock-chat", messages=[{"role": "user", "content": question}]
    )
    return answer.choices[0].message.content or ""


async def main() -> None:
    """Ask all questions at once and say how many were answered."""
    async with AsyncOpenAI(
        http_client=forebay.http_client(REDIS_URL, max_parallel_requests=8)  # the changed line
    ) as client:
        questions = [f"What does reservoir {number} feed?" for number in range(40)]
        answers = await asyncio.gather(*(ask(client, question) for question in questions))
    print(f"{len([answer for answer in answers if answer])} answers")


if __name__ == "__main__":
    asyncio.run(main())
