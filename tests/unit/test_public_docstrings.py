"""Each exported name says its arguments, what it returns and raises, and shows its use."""

from __future__ import annotations

import dataclasses
import enum
import inspect
import re
from collections.abc import Callable, Iterator

import pytest
from pydantic import BaseModel

from tests.support_public_names import methods_of, public_objects

OBJECTS = dict(public_objects())
SECTION = re.compile(r"^(Args|Attributes|Example|Raises|Returns):$", re.MULTILINE)
RAISES_NOTHING = re.compile(r"[Nn]ever raises|[Rr]aises nothing")
_HAS_NOTHING_TO_SHOW = {
    "Allowlist.check": "called by a worker, with a workflow that was read",
    "ForebayWorker.run": "blocks the process until a signal",
    "TiktokenEstimator": "needs the data of a tokenizer",
    "TiktokenEstimator.estimate": "needs the data of a tokenizer",
}


_IS_SHORT = {
    "AdaptiveRequestAdmissionController.acquire",
    "AdaptiveRequestAdmissionController.acquire_sync",
    "AdaptiveRequestAdmissionController.assert_held",
    "AdaptiveRequestAdmissionController.attempt",
    "AdaptiveRequestAdmissionController.close",
    "AdaptiveRequestAdmissionController.known",
    "AdaptiveRequestAdmissionController.learn",
    "AdaptiveRequestAdmissionController.limited",
    "AdaptiveRequestAdmissionController.release",
    "AdaptiveRequestAdmissionController.return_unused",
    "AdaptiveRequestAdmissionController.try_acquire",
    "Allowlist.check",
    "Allowlist.of",
    "BlockingRequestAdmissionController.acquire",
    "BlockingRequestAdmissionController.assert_held",
    "BlockingRequestAdmissionController.attempt",
    "BlockingRequestAdmissionController.learn",
    "BlockingRequestAdmissionController.limited",
    "BlockingRequestAdmissionController.register",
    "BlockingRequestAdmissionController.release",
    "BlockingRequestAdmissionController.try_acquire",
    "CharacterEstimator.estimate",
    "Classifier",
    "Classifier.classify_exception",
    "Classifier.classify_response",
    "Classifier.is_retryable",
    "Connection.leave_soon",
    "DefaultClassifier.classify_exception",
    "DefaultClassifier.classify_response",
    "DefaultClassifier.is_retryable",
    "ForebayWorker.async_run",
    "ForebayWorker.run",
    "JobPool.aclose",
    "JobPool.all_job_results",
    "JobPool.enqueue_job",
    "JobPool.queued_jobs",
    "ModelRequestExecutor.aclose",
    "ModelRequestExecutor.execute",
    "ModelRequestExecutor.execute_attempt",
    "RequestAttempt",
    "RequestAttempt.rate_limited",
    "RetryBudget.give_back",
    "RetryBudget.take",
    "TiktokenEstimator.estimate",
    "TokenEstimator",
    "TokenEstimator.estimate",
}
"""Names whose docstrings do not yet say each argument, what is returned and what is raised."""
_IS_NOT_SHOWN = {
    "AdaptiveRequestAdmissionController",
    "AdaptiveRequestAdmissionController.acquire",
    "AdaptiveRequestAdmissionController.acquire_sync",
    "AdaptiveRequestAdmissionController.assert_held",
    "AdaptiveRequestAdmissionController.attempt",
    "AdaptiveRequestAdmissionController.close",
    "AdaptiveRequestAdmissionController.known",
    "AdaptiveRequestAdmissionController.learn",
    "AdaptiveRequestAdmissionController.limited",
    "AdaptiveRequestAdmissionController.register",
    "AdaptiveRequestAdmissionController.release",
    "AdaptiveRequestAdmissionController.release_sync",
    "AdaptiveRequestAdmissionController.return_unused",
    "AdaptiveRequestAdmissionController.try_acquire",
    "BlockingRequestAdmissionController.caller",
    "BlockingRequestAdmissionController.learn",
    "BoundedBorrowTaskAdmissionPolicyConfig",
    "Connection",
    "Connection.leave_soon",
    "DebtCeiling",
    "DebtCeiling.group",
    "ForebayWorker",
    "ForebayWorker.async_run",
    "ForebayWorker.close",
    "ForebayWorker.drained",
    "ForebayWorker.is_stopping",
    "JobPool",
    "JobPool.aclose",
    "JobPool.all_job_results",
    "JobPool.enqueue_job",
    "JobPool.job",
    "JobPool.queued_jobs",
    "ModelRequest",
    "ModelRequestExecutor.execute_attempt",
    "RequestAdmissionLease",
    "RequestAttempt",
    "RequestAttempt.lease",
    "RequestAttempt.outcome",
    "RequestAttempt.rate_limited",
    "TaskGroupSpec",
    "TokenUsage",
    "open_worker",
    "transport",
}
"""Names without an example as yet."""


def sections(documented: object) -> dict[str, str]:
    """Return the sections of a docstring, each with its text; the first is named ''."""
    text = inspect.getdoc(documented) or ""
    parts = SECTION.split(text)
    return {"": parts[0]} | dict(zip(parts[1::2], parts[2::2], strict=True))


def names_in(section: str) -> set[str]:
    """Return what a section of arguments or attributes names."""
    lines = re.findall(r"^ {4}(\*{0,2}[\w, *]+):", section, re.MULTILINE)
    return {name.strip(" *") for line in lines for name in line.split(",")}


def parameters_of(function: Callable[..., object]) -> set[str]:
    return set(inspect.signature(function).parameters) - {"self", "cls", "close_connection_pool"}


def faults_of_call(function: Callable[..., object]) -> Iterator[str]:
    """Yield what the docstring of a function or method leaves out."""
    said = sections(function)
    if missing := parameters_of(function) - names_in(said.get("Args", "")):
        yield f"Args lacks {sorted(missing)}"
    if function.__annotations__.get("return") != "None" and "Returns" not in said:
        yield "no Returns"
    if "Raises" not in said and not RAISES_NOTHING.search(inspect.getdoc(function) or ""):
        yield "no Raises"


def faults_of_class(made: type) -> Iterator[str]:
    """Yield what the docstring of a class leaves out."""
    said = sections(made)
    attributes = names_in(said.get("Attributes", ""))
    if issubclass(made, enum.Enum):
        expected = set(made.__members__)
    elif dataclasses.is_dataclass(made):
        expected = {field.name for field in dataclasses.fields(made)}
    elif issubclass(made, BaseModel):
        expected = set(made.model_fields)
    elif issubclass(made, Exception):
        expected = set()
        if "__init__" in vars(made):
            expected = set(re.findall(r"self\.(\w+) =", inspect.getsource(made.__init__)))
    else:
        expected = set()
        arguments = parameters_of(made.__init__) if "__init__" in vars(made) else set()
        if missing := arguments - names_in(said.get("Args", "")):
            yield f"Args lacks {sorted(missing)}"
    if missing := expected - attributes:
        yield f"Attributes lacks {sorted(missing)}"
    checks = hasattr(made, "__post_init__") or issubclass(made, BaseModel)
    if checks and "Raises" not in said:
        yield "no Raises"


def is_shown(name: str) -> bool:
    """Say whether a name's own docstring, or that of its class, shows its use."""
    owner, _, method = name.partition(".")
    if "Example" in sections(OBJECTS[name]):
        return True
    of_class = [OBJECTS[owner], *(found for _, found in methods_of(OBJECTS[owner]))]  # type: ignore[arg-type]
    shown = "".join(sections(each).get("Example", "") for each in of_class)
    return bool(method) and re.search(rf"\.{method}\b", shown) is not None


def does_something(name: str) -> bool:
    documented = OBJECTS[name]
    if not inspect.isclass(documented):
        return True
    return not (
        issubclass(documented, enum.Enum | Exception)
        or getattr(documented, "_is_protocol", False)
        or (dataclasses.is_dataclass(documented) and not hasattr(documented, "__post_init__"))
    )


@pytest.mark.parametrize("name", OBJECTS)
def test_a_public_docstring_says_arguments_returns_and_errors(name: str) -> None:
    documented = OBJECTS[name]
    if isinstance(documented, property):
        faults = [] if inspect.getdoc(documented) else ["no docstring"]
    elif inspect.isclass(documented):
        faults = [*faults_of_class(documented)]
    else:
        faults = [*faults_of_call(documented)]  # type: ignore[arg-type]
    assert bool(faults) == (name in _IS_SHORT), faults


@pytest.mark.parametrize("name", [name for name in OBJECTS if does_something(name)])
def test_what_does_something_has_an_example(name: str) -> None:
    owner = OBJECTS[name.partition(".")[0]]
    if name in {*_HAS_NOTHING_TO_SHOW, *_IS_NOT_SHOWN} or getattr(owner, "_is_protocol", False):
        assert not is_shown(name)
    else:
        assert is_shown(name)
