"""Content encodings of answers, with each package that may be there for them."""

from __future__ import annotations

import gzip
from collections.abc import Iterator

import backports.zstd
import brotli
import pytest
import zstandard

from forebay.workers.providers import answer_decoding
from forebay.workers.providers.answer_decoding import STEP_BYTES, decoder_of

BODY = b"".join(b"%d " % number for number in range(100_000))
FRAMES = backports.zstd.compress(BODY[:99]) + backports.zstd.compress(BODY[99:])
ONE_FRAME = zstandard.compress(BODY)


@pytest.fixture(autouse=True)
def _found_anew() -> Iterator[None]:
    answer_decoding._first_of.cache_clear()
    yield
    answer_decoding._first_of.cache_clear()


@pytest.fixture(params=["backports.zstd", "zstandard"])
def _one_zstd(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    found = answer_decoding.importlib.import_module

    def only(name: str) -> object:
        if "zst" in name and name != request.param:
            raise ImportError
        return found(name)

    monkeypatch.setattr(answer_decoding.importlib, "import_module", only)


def decoded(encoding: str, body: bytes, step: int) -> bytes:
    decoder = decoder_of(encoding)
    assert decoder is not None
    pieces = (body[at : at + step] for at in range(0, len(body), step))
    return b"".join(part for piece in pieces for part in decoder.decode(piece))


@pytest.mark.parametrize("step", [1, 7, 1000, 10**9])
@pytest.mark.parametrize("body", [ONE_FRAME, FRAMES], ids=["one frame", "two frames"])
@pytest.mark.usefixtures("_one_zstd")
def test_each_package_for_zstd_decodes_alike(body: bytes, step: int) -> None:
    assert decoded("zstd", body, step) == BODY


@pytest.mark.parametrize("step", [1, 7, 1000, 10**9])
@pytest.mark.parametrize(
    ("encoding", "body"), [("br", brotli.compress(BODY)), ("gzip", gzip.compress(BODY))]
)
def test_what_is_decoded_comes_in_bounded_parts(encoding: str, body: bytes, step: int) -> None:
    assert decoded(encoding, body, step) == BODY
    decoder = decoder_of(encoding)
    assert decoder is not None
    assert max(map(len, decoder.decode(body))) <= 2 * STEP_BYTES


@pytest.mark.usefixtures("_one_zstd")
def test_zstd_comes_in_bounded_parts() -> None:
    decoder = decoder_of("zstd")
    assert decoder is not None
    bomb = zstandard.compress(b" " * 100_000_000)
    assert max(map(len, decoder.decode(bomb))) <= 256 // 4 * 131_072


@pytest.mark.parametrize("encoding", ["br", "zstd"])
def test_an_encoding_whose_package_is_missing_has_no_decoder(
    encoding: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(_name: str) -> object:
        raise ImportError

    monkeypatch.setattr(answer_decoding.importlib, "import_module", missing)
    assert decoder_of(encoding) is None


def test_brotli_before_its_parts_could_be_bounded_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    class Old:
        class Decompressor:
            def __init__(self) -> None:
                self._decompressor = brotli.Decompressor()

            def process(self, data: bytes) -> bytes:
                return self._decompressor.process(data)

    monkeypatch.setattr(answer_decoding, "_first_of", lambda *_: Old)
    assert decoded("br", brotli.compress(BODY), 1000) == BODY
