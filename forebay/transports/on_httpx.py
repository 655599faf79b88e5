"""The transports for ``httpx``."""

from __future__ import annotations

import httpx

from forebay.transports.core import AsyncAdmitted, BlockingAdmitted
from forebay.transports.streams import AsyncBody, SyncBody


class _AsyncStream(AsyncBody, httpx.AsyncByteStream):
    """The body of an answer."""


class _SyncStream(SyncBody, httpx.SyncByteStream):
    """The body of an answer."""


class AsyncTransport(AsyncAdmitted, httpx.AsyncBaseTransport):
    """Each attempt of an ``httpx.AsyncClient`` under a lease."""

    body_class = _AsyncStream


class SyncTransport(BlockingAdmitted, httpx.BaseTransport):
    """Each attempt of an ``httpx.Client`` under a lease."""

    body_class = _SyncStream
