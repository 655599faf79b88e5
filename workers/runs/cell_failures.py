"""Sentences about a failed cell: which provider or value failed, and how (design 05, *Failures*).

A reason is written to ``dropped.jsonl`` and logged, so it names statuses, hosts and places in code,
and never holds a prompt, an answer, a row value, a key or the message of a foreign exception.
"""

from __future__ import annotations

import socket
import ssl
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

from redis.exceptions import RedisError

from forebay.contracts.errors import CoordinatorError, ForebayError, WorkflowError
from forebay.contracts.identity import RequestResourceKey
from forebay.contracts.outcomes import RequestOutcomeKind
from forebay.contracts.requests import RequestAdmissionError, RequestDenialReason
from forebay.workers.evaluation.evaluator import EvaluatorUnavailable
from forebay.workers.providers.classification import DefaultClassifier
from forebay.workers.providers.openai_answers import UNREADABLE, ProviderHTTPError

_WAITS = frozenset(
    {
        RequestDenialReason.COOLDOWN,
        RequestDenialReason.QUEUE_TIMEOUT,
        RequestDenialReason.QUOTA,
        RequestDenialReason.NO_CAPACITY,
        RequestDenialReason.QUEUED_WAITERS_AHEAD,
    }
)
"""Denials that pass with time; they count no try."""
_BROKEN = frozenset({"ReadError", "WriteError", "CloseError", "RemoteProtocolError"})


class ModelCallFailed(ForebayError):  # noqa: N818 - an outcome of a cell, not a fault of the run
    """A call of a model failed without an answer.

    Attributes:
        resource: what was called.
        reason: what failed, such as ``401 from beta/b-big (invalid_api_key)``.
        status: HTTP status of the answer, or what there was in its place: ``timeout``, ``tls``,
            ``connection``, ``no_lease`` or ``other``.
        is_rate_limited: whether there was no room: at the provider, or in the queue before it.
        is_retryable: whether another try may end better.
    """

    def __init__(
        self, resource: RequestResourceKey, error: Exception, *, base_url: str, timeout: float
    ) -> None:
        self.resource = resource
        self.reason = reason_of_call(
            error, str(resource.provider_model), base_url=base_url, timeout=timeout
        )
        super().__init__(self.reason)
        self.status = status_of_call(error)
        denied = error.denied.reason if isinstance(error, RequestAdmissionError) else None
        classifier = DefaultClassifier()
        outcome = classifier.classify_exception(error, now=time.time())
        is_refused = outcome.kind is RequestOutcomeKind.RATE_LIMITED
        self.is_rate_limited = denied in _WAITS if denied else is_refused
        self.is_retryable = self.is_rate_limited or classifier.is_retryable(outcome)


def reason_of_call(error: Exception, name: str, *, base_url: str, timeout: float) -> str:
    """Return the sentence for a failed call of the model ``name``.

    Args:
        error: as the client or the executor raised it.
        name: provider and model.
        base_url: the provider's.
        timeout: seconds that an answer may take.
    """
    if isinstance(error, ProviderHTTPError):
        return _reason_of_answer(error, name)
    if isinstance(error, RequestAdmissionError):
        return f"no lease for {name}: {error.denied.reason.value}"
    host = urlsplit(base_url).netloc
    causes = (_reason_of_cause(cause, name, host) for cause in _causes(error))
    return next(filter(None, causes), None) or _reason_of_kind(error, name, host, timeout)


def status_of_call(error: Exception) -> str:
    """Return the HTTP status that a failed call was answered with, or the kind of its error."""
    kind = type(error).__name__
    if isinstance(error, ProviderHTTPError):
        return str(error.status)
    if isinstance(error, RequestAdmissionError):
        return "no_lease"
    if any(isinstance(cause, ssl.SSLError) for cause in _causes(error)):
        return "tls"
    if isinstance(error, TimeoutError) or kind.endswith("Timeout"):
        return "timeout"
    if isinstance(error, ConnectionError) or kind == "ConnectError" or kind in _BROKEN:
        return "connection"
    return "other"


def reason_of(error: Exception) -> str:
    """Return the sentence for a failure that was not a model call."""
    return str(error) if isinstance(error, ForebayError) else f"raised {place_of(error)}"


def may_be_mended(error: Exception) -> bool:
    """Whether another try may help: also elsewhere, where the seed file can be read."""
    if isinstance(error, ModelCallFailed):
        return error.is_retryable
    return isinstance(error, CoordinatorError | WorkflowError | EvaluatorUnavailable | RedisError)


def place_of(error: BaseException) -> str:
    """Return class and place of an exception; its message may hold anything."""
    frames = traceback.extract_tb(error.__traceback__)
    if not frames:
        return type(error).__name__
    path = Path(frames[-1].filename)
    return f"{type(error).__name__} at {path.parent.name}/{path.name}:{frames[-1].lineno}"


def _reason_of_cause(cause: BaseException, name: str, host: str) -> str | None:
    match cause:
        case ssl.SSLError():
            why = getattr(cause, "verify_message", "") or cause.reason or "no handshake"
            return f"TLS with {name} at {host} failed: {why}"
        case socket.gaierror():
            return f"host {host} of {name} cannot be resolved"
        case ConnectionRefusedError():
            return f"{host} of {name} refused the connection"
    return None


def _reason_of_kind(error: Exception, name: str, host: str, timeout: float) -> str:
    kind = type(error).__name__
    if kind == "ConnectTimeout":
        return f"no connection to {name} at {host} in time"
    if isinstance(error, TimeoutError) or kind.endswith("Timeout"):
        return f"no answer from {name} within {timeout:g} s"
    if kind == "ConnectError":
        return f"no connection to {name} at {host}"
    if isinstance(error, ConnectionError) or kind in _BROKEN:
        return f"{host} of {name} closed the connection before its answer was whole"
    return f"the call of {name} raised {place_of(error)}"


def _reason_of_answer(error: ProviderHTTPError, name: str) -> str:
    is_good = 200 <= error.status < 300  # noqa: PLR2004
    if is_good and error.error_code == UNREADABLE:
        return f"unreadable answer from {name} (status {error.status})"
    if is_good:
        return f"error {error.error_code} in the answer of {name} (status {error.status})"
    code = f" ({error.error_code})" if error.error_code else ""
    return f"{error.status} from {name}{code}"


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__
