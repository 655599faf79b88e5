"""Repeatable randomness: the same seed and content draw the same numbers, on every machine.

Only ``random.Random.random`` is used, because it alone is promised to give the same sequence in
later versions of Python.
"""

from __future__ import annotations

import hashlib
import math
import random
import statistics
from collections import OrderedDict
from collections.abc import Sequence
from typing import TypeVar

from forebay.mock_provider.truth import ProviderTruth

T = TypeVar("T")

_REMEMBERED_CONTENTS = 200_000
_STANDARD_NORMAL = statistics.NormalDist()


def digest_of(*parts: str | int) -> str:
    """Return a hexadecimal digest of the parts, in order, that does not confuse their borders."""
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        coded = str(part).encode("utf-8", "surrogatepass")
        digest.update(b"%d:" % len(coded))
        digest.update(coded)
    return digest.hexdigest()


def stream_of(*parts: str | int) -> random.Random:
    """Return a generator of numbers that belongs to these parts."""
    return random.Random("/".join(map(str, parts)))  # noqa: S311 - repeatable on purpose


def pick(rng: random.Random, options: Sequence[T]) -> T:
    """Pick one of the options, which must not be empty."""
    return options[below(rng, len(options))]


def below(rng: random.Random, bound: int) -> int:
    """Draw an integer from 0 up to, but not including, ``bound``."""
    return min(int(rng.random() * bound), bound - 1)


class ServiceDraws:
    """Draws latency and failure of a request from its content and how often it came before.

    Counting makes a retry of a failed request another draw, as with a real provider, and keeps
    the draws independent of the order in which concurrent requests happen to arrive.
    """

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._times_seen: OrderedDict[str, int] = OrderedDict()
        self._refusals = stream_of(seed, "refusals")
        self._overloads = stream_of(seed, "overloads within streams")

    def refuses(self, truth: ProviderTruth) -> bool:
        """Return whether the next request is refused independent of the limits."""
        return truth.refusal_rate > 0 and self._refusals.random() < truth.refusal_rate

    def breaks_off(self, truth: ProviderTruth) -> bool:
        """Return whether the next streamed answer ends with an overload."""
        return truth.stream_overload_rate > 0 and (
            self._overloads.random() < truth.stream_overload_rate
        )

    def draw(self, truth: ProviderTruth, digest: str) -> tuple[float, bool]:
        """Return the latency in seconds, and whether the request fails."""
        times = self._times_seen.pop(digest, 0)
        self._times_seen[digest] = times + 1
        if len(self._times_seen) > _REMEMBERED_CONTENTS:
            self._times_seen.popitem(last=False)
        # Both are always drawn, in this order: another error rate leaves the latencies as they are.
        rng = stream_of(self._seed, "service", digest, times)
        fails = rng.random() < truth.error_rate
        # The inverse is not defined at exactly 0.
        normal = _STANDARD_NORMAL.inv_cdf(max(rng.random(), 1e-12))
        latency = truth.latency_median_seconds * math.exp(truth.latency_sigma * normal)
        return max(latency, truth.latency_floor_seconds), fails
