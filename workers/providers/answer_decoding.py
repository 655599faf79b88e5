"""Undoing the content encodings of answers, in steps of bounded size.

``httpx`` and ``httpx2`` ask for ``br`` and ``zstd`` only where a package for them is installed, so
what is looked for here is what they look for.
"""

from __future__ import annotations

import importlib
import zlib
from collections.abc import Callable, Iterator
from functools import cache
from types import ModuleType
from typing import Any, Final, Protocol

STEP_BYTES: Final = 65_536
"""About how much is decoded at once: a few bytes can stand for gigabytes."""

_BROTLI: Final = ("brotli", "brotlicffi")
_ZSTD: Final = ("compression.zstd", "backports.zstd")
# zstandard decodes all that it is given at once: 4 bytes at most stand for a block of 128 kB.
_ZSTANDARD_STEP: Final = 256
_MOST_FRAMES: Final = 1_000
"""Frames of one body: each costs the same, and an empty one is a few bytes long."""
_LARGEST_ZSTD_WINDOW_LOG: Final = 23  # 8 MB, the most that HTTP allows (RFC 9659)


class Decoder(Protocol):
    """Decodes a body from its beginning to its end."""

    def decode(self, data: bytes) -> Iterator[bytes]:
        """Yield the decoded next bytes in parts of bounded size; raises if broken."""
        ...


def decoder_of(encoding: str) -> Decoder | None:
    """Return a decoder for a ``content-encoding``; None for one that cannot be decoded here."""
    name = encoding.strip().lower()
    if name in {"", "identity"}:
        return _Identity()
    if name in {"gzip", "x-gzip", "deflate"}:
        return _Zlib()
    if name == "br" and (brotli := _first_of(*_BROTLI)) is not None:
        return _Brotli(brotli.Decompressor())
    if name == "zstd":
        if (zstd := _first_of(*_ZSTD)) is not None:
            options = {zstd.DecompressionParameter.window_log_max: _LARGEST_ZSTD_WINDOW_LOG}
            return _Zstd(lambda: zstd.ZstdDecompressor(options=options))
        if (zstandard := _first_of("zstandard")) is not None:
            largest = 2**_LARGEST_ZSTD_WINDOW_LOG
            make = zstandard.ZstdDecompressor(max_window_size=largest).decompressobj
            return _Zstandard(make)
    return None


@cache
def _first_of(*names: str) -> ModuleType | None:
    for name in names:
        try:
            return importlib.import_module(name)
        except ImportError:
            continue
    return None


class _Identity:
    def decode(self, data: bytes) -> Iterator[bytes]:
        yield data


class _Zlib:
    def __init__(self) -> None:
        # 32: finds out by itself whether the header is gzip's or zlib's.
        self._inflate: Any = zlib.decompressobj(zlib.MAX_WBITS | 32)
        self._has_begun = False

    def decode(self, data: bytes) -> Iterator[bytes]:
        rest = data
        # What follows the end would be kept by zlib, and copied with every part of it.
        while rest and not self._inflate.eof:
            try:
                part = self._inflate.decompress(rest, STEP_BYTES)
            except zlib.error:
                if self._has_begun:
                    raise
                # Some servers send deflate without zlib's header.
                self._inflate = zlib.decompressobj(-zlib.MAX_WBITS)
                part = self._inflate.decompress(rest, STEP_BYTES)
            rest = self._inflate.unconsumed_tail
            self._has_begun |= bool(part)
            yield part


class _Brotli:
    def __init__(self, decompressor: Any) -> None:
        self._decode = getattr(decompressor, "process", None) or decompressor.decompress
        # Before 1.2 all is decoded at once, and so it is by the client.
        self._bound = {}
        if hasattr(decompressor, "can_accept_more_data"):
            self._bound = {"output_buffer_limit": STEP_BYTES}

    def decode(self, data: bytes) -> Iterator[bytes]:
        part = self._decode(data, **self._bound)
        while part:
            yield part
            part = self._decode(b"", **self._bound) if self._bound else b""


class _Frames:
    """Base of decoders for bodies of several frames, up to a bound."""

    def __init__(self, make: Callable[[], Any]) -> None:
        self._make = make
        self._frame = make()
        self._count = 1

    def _next_frame(self) -> None:
        if self._count == _MOST_FRAMES:
            raise ValueError(f"more than {_MOST_FRAMES} frames")
        self._count += 1
        self._frame = self._make()


class _Zstd(_Frames):
    """Decoder of zstd by the standard library or its backport."""

    def decode(self, data: bytes) -> Iterator[bytes]:
        rest = data
        while True:
            if self._frame.eof:
                rest = self._frame.unused_data + rest
                if not rest:
                    return
                self._next_frame()
            yield self._frame.decompress(rest, STEP_BYTES)
            rest = b""
            if self._frame.needs_input:
                return


class _Zstandard(_Frames):
    """Decoder of zstd by the package ``zstandard``."""

    def decode(self, data: bytes) -> Iterator[bytes]:
        for start in range(0, len(data), _ZSTANDARD_STEP):
            rest = data[start : start + _ZSTANDARD_STEP]
            while rest:
                if self._frame.eof:
                    self._next_frame()
                yield self._frame.decompress(rest)
                rest = self._frame.unused_data if self._frame.eof else b""
