"""Reads the body of an answer up to a bound."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import Final

import httpx2

from forebay.workers.providers.answer_decoding import decoder_of

ACCEPTED_ENCODINGS: Final = "gzip, deflate"
"""Encodings that every installation decodes in steps of bounded size."""

MOST_PARTS: Final = 20_000
"""Parts, such as chunks, that a body may come in: each costs the same however short it is."""


class BodyTooLong(Exception):  # noqa: N818 - an outcome of an answer, always caught
    """A body is longer than it may be, or comes in too many parts; the rest was not read."""


class BodyUnreadable(Exception):  # noqa: N818 - as above
    """A body is not in the encoding of its header, or in one that was not asked for."""


async def read_body(response: httpx2.Response, most_bytes: int) -> bytes:
    """Return the decoded body of an answer; its connection is the caller's to close.

    Args:
        response: of a request that streams.
        most_bytes: bound of the body, as it came and decoded.

    Raises:
        BodyTooLong, BodyUnreadable: and no more of it was read.
        httpx2.TransportError: the connection broke.
    """
    if response.is_closed:  # made in memory, and decoded there
        if len(response.content) > most_bytes:
            raise BodyTooLong
        return response.content
    encoding = response.headers.get("content-encoding", "").strip().lower()
    is_accepted = encoding in {"", "identity", "gzip", "x-gzip", "deflate"}
    decoder = decoder_of(encoding) if is_accepted else None
    if decoder is None:
        raise BodyUnreadable
    body = bytearray()
    raw_bytes = parts = 0
    async for raw in response.aiter_raw():
        raw_bytes += len(raw)
        parts += 1
        if raw_bytes > most_bytes or parts > MOST_PARTS:
            raise BodyTooLong
        try:
            _decode_onto(body, decoder.decode(raw), most_bytes)
        except zlib.error:
            raise BodyUnreadable from None
    return bytes(body)


def _decode_onto(body: bytearray, decoded: Iterator[bytes], most_bytes: int) -> None:
    for part in decoded:
        body += part
        if len(body) > most_bytes:
            raise BodyTooLong
