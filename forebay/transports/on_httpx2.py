"""The transports for ``httpx2``."""

from __future__ import annotations

import httpx2

from forebay.transports.core import AsyncAdmitted, BlockingAdmitted
from forebay.transports.streams import AsyncBody, SyncBody


class _AsyncStream(AsyncBody, httpx2.AsyncByteStream):
    """The body of an answer."""


class _SyncStream(SyncBody, httpx2.SyncByteStream):
    """The body of an answer."""


class AsyncTransport(AsyncAdmitted, httpx2.AsyncBaseTransport):
    """Each attempt of an ``httpx2.AsyncClient`` under a lease."""

    body_class = _AsyncStream


class SyncTransport(BlockingAdmitted, httpx2.BaseTransport):
    """Each attempt of an ``httpx2.Client`` under a lease."""

    body_class = _SyncStream
