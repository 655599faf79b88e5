"""What is said of a call that failed, by real clients against real sockets.

Rules: design 05, *Failures*.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import httpx2
import pytest

from forebay.contracts.errors import ConfigurationError
from forebay.contracts.identity import ProviderModelKey, RequestResourceKey
from forebay.contracts.requests import (
    RequestAdmissionDenied,
    RequestAdmissionError,
    RequestAdmissionItem,
    RequestDenialReason,
    new_attempt_id,
)
from forebay.workers.providers.openai_answers import ProviderHTTPError
from forebay.workers.providers.openai_client import OpenAICompatibleClient
from forebay.workers.runs.cell_failures import ModelCallFailed, place_of, reason_of

B_BIG = RequestResourceKey(provider_model=ProviderModelKey(provider_name="beta", model_id="b-big"))
Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def failed(error: Exception, base_url: str = "http://127.0.0.1:9/v1") -> ModelCallFailed:
    return ModelCallFailed(B_BIG, error, base_url=base_url, timeout=0.2)


async def failure_at(base_url: str) -> ModelCallFailed:
    """Call a model there and return what is made of the error."""
    async with OpenAICompatibleClient(base_url) as client:
        with pytest.raises(Exception) as caught:  # noqa: PT011 - whatever it is, it is told
            await client.chat("b-big", [{"role": "user", "content": "secret"}], timeout_seconds=0.2)
    return failed(caught.value, base_url)


@asynccontextmanager
async def serving(serve: Serve) -> AsyncIterator[str]:
    """Yield the URL of a server that does something else than to answer."""
    served: list[asyncio.Task[None]] = []

    async def serve_and_close(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await serve(reader, writer)
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        served.append(asyncio.create_task(serve_and_close(reader, writer)))

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
        await asyncio.gather(*served)


@pytest.mark.parametrize(
    ("status", "code", "reason", "is_retryable", "is_rate_limited"),
    [
        (401, "invalid_api_key", "401 from beta/b-big (invalid_api_key)", False, False),
        (403, None, "403 from beta/b-big", False, False),
        (404, None, "404 from beta/b-big", False, False),
        (429, None, "429 from beta/b-big", True, True),
        (429, "insufficient_quota", "429 from beta/b-big (insufficient_quota)", False, False),
        (500, None, "500 from beta/b-big", True, False),
        (503, None, "503 from beta/b-big", True, True),
        (200, "unreadable_answer", "unreadable answer from beta/b-big (status 200)", True, False),
    ],
)
def test_an_answer_is_told_by_its_status_and_code(
    status: int, code: str | None, reason: str, is_retryable: bool, is_rate_limited: bool
) -> None:
    failure = failed(ProviderHTTPError(status, {}, code))
    assert failure.reason == reason
    assert failure.is_retryable == is_retryable
    assert failure.is_rate_limited == is_rate_limited


async def test_a_refused_connection_names_host_and_model() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        host = f"127.0.0.1:{unused.getsockname()[1]}"
        failure = await failure_at(f"http://{host}/v1")
    assert failure.reason == f"{host} of beta/b-big refused the connection"
    assert failure.is_retryable


async def test_a_host_without_an_address_is_told() -> None:
    failure = await failure_at("http://no-such-host.invalid/v1")
    assert failure.reason == "host no-such-host.invalid of beta/b-big cannot be resolved"


async def test_no_answer_in_time_is_told_with_the_time() -> None:
    async def wait(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async with serving(wait) as url:
        failure = await failure_at(url)
    assert failure.reason == "no answer from beta/b-big within 0.2 s"
    assert failure.is_retryable


async def test_a_connection_that_is_closed_early_is_told() -> None:
    async def close(_reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        """Answer nothing."""

    async with serving(close) as url:
        failure = await failure_at(url)
    assert "of beta/b-big closed the connection before its answer was whole" in failure.reason


async def test_a_server_without_tls_is_told_as_tls() -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(b"no TLS here\r\n")

    async with serving(talk) as url:
        failure = await failure_at(url.replace("http:", "https:"))
    assert failure.reason.startswith("TLS with beta/b-big at 127.0.0.1:")


def test_a_certificate_that_nobody_signed_is_told_by_its_fault() -> None:
    error = httpx2.ConnectError("secret of the transport")
    error.__cause__ = ssl.SSLCertVerificationError()
    error.__cause__.verify_message = "self-signed certificate"
    reason = failed(error, "https://beta.example:8443/v1").reason
    assert reason == "TLS with beta/b-big at beta.example:8443 failed: self-signed certificate"


@pytest.mark.parametrize(
    ("denial", "is_rate_limited"),
    [
        (RequestDenialReason.COOLDOWN, True),
        (RequestDenialReason.QUEUE_TIMEOUT, True),
        (RequestDenialReason.QUOTA, True),
        (RequestDenialReason.HARD_POLICY_DENIAL, False),
    ],
)
def test_a_denied_lease_is_told_by_its_reason(
    denial: RequestDenialReason, is_rate_limited: bool
) -> None:
    item = RequestAdmissionItem(resource=B_BIG, attempt_id=new_attempt_id())
    denied = RequestAdmissionDenied(item=item, reason=denial)
    failure = failed(RequestAdmissionError(denied, "a message"))
    assert failure.reason == f"no lease for beta/b-big: {denial.value}"
    assert failure.is_rate_limited == is_rate_limited


def test_an_exception_of_foreign_code_is_told_by_its_place_and_never_by_its_message() -> None:
    try:
        raise KeyError("a row value")  # noqa: TRY301 - its place is what is told
    except KeyError as error:
        reasons = [failed(error).reason, reason_of(error)]
        place = place_of(error)
    assert place.startswith("KeyError at unit/test_cell_failures.py:")
    assert reasons == [f"the call of beta/b-big raised {place}", f"raised {place}"]


def test_an_error_of_ours_is_told_in_its_own_words() -> None:
    assert reason_of(ConfigurationError("no such model")) == "no such model"
