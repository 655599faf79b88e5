"""The mock provider's counters, and changes of its truth, over HTTP."""

from __future__ import annotations

import json
import urllib.request
from collections import Counter
from collections.abc import Mapping
from typing import Any, Final

from bench.shared_capacity.load import HTTP_OK, HTTP_TOO_MANY

TIMEOUT_SECONDS: Final = 60.0


class TruthCounts:
    """The mock provider's own counters; a refusal counts as 429 whatever its status."""

    def __init__(self, base_url: str) -> None:
        self._url = _truth_url(base_url)
        self._counted: Counter[int] = Counter()

    def begin(self) -> None:
        """Count from here on."""
        self._counted = self._all()

    def since(self, total: int) -> Counter[int]:  # noqa: ARG002
        """Return the answers since `begin`; they are counted before they are sent."""
        return self._all() - self._counted

    def _all(self) -> Counter[int]:
        counters = get_json(self._url)["counters"]
        failed = counters["errors"] + counters["abandoned"] + counters["invalid"]
        return Counter({HTTP_OK: counters["ok"], HTTP_TOO_MANY: counters["refused"], 0: failed})


def change_truth(base_url: str, changes: Mapping[str, Any]) -> None:
    """Change what the mock provider can take, from now on."""
    get_json(_truth_url(base_url), json.dumps(changes).encode())


def _truth_url(base_url: str) -> str:
    return base_url.removesuffix("/v1") + "/truth"


def get_json(url: str, body: bytes | None = None) -> Any:
    """Return the JSON that a GET, or a POST of ``body``, is answered with."""
    request = urllib.request.Request(url, body, {"content-type": "application/json"})
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(request, timeout=TIMEOUT_SECONDS) as response:
        return json.load(response)
