"""Generators of this example: passages with their vectors, and the documents nearest to each."""

from __future__ import annotations

import re
from typing import Any

MOST_CHARACTERS = 160


class Passages:
    """Cuts a text at its sentences into passages, and has all of a document embedded in one call.

    The workflow gives ``most_characters`` as a parameter of the column.
    """

    def __init__(self, most_characters: int = MOST_CHARACTERS) -> None:
        self.most_characters = most_characters

    async def generate(self, record: dict[str, Any], models: Any) -> list[dict[str, Any]]:
        passages = cut(record["text"], self.most_characters)
        vectors = await models.embed("embedder", [f"{record['title']}: {p}" for p in passages])
        return [
            {"passage": passage, "vector": [round(number, 6) for number in vector]}
            for passage, vector in zip(passages, vectors, strict=True)
        ]


def cut(text: str, most_characters: int) -> list[str]:
    """Return passages of whole sentences; one sentence may be longer than the bound."""
    passages: list[str] = []
    for sentence in re.split(r"(?<=[.!?])\s+", text.strip()):
        if passages and len(passages[-1]) + 1 + len(sentence) <= most_characters:
            passages[-1] += f" {sentence}"
        else:
            passages.append(sentence)
    return passages


def nearest(records: list[dict[str, Any]], models: Any) -> list[str | None]:  # noqa: ARG001
    """Return for each document of a row group the id of the one whose passages are nearest.

    Called once a row group (``batch = true``), without a model.
    """
    means = [mean([entry["vector"] for entry in record["passages"]]) for record in records]
    found = []
    for index, own in enumerate(means):
        others = [
            (sum(a * b for a, b in zip(own, other, strict=True)), records[place]["doc_id"])
            for place, other in enumerate(means)
            if place != index
        ]
        found.append(max(others)[1] if others else None)
    return found


def mean(vectors: list[list[float]]) -> list[float]:
    """Return the mean of vectors of one length."""
    return [sum(numbers) / len(vectors) for numbers in zip(*vectors, strict=True)]
