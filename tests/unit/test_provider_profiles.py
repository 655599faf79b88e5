"""The profiles: tables of one shape, each fact with its source, and what is read by them."""

from __future__ import annotations

import ast
import importlib.metadata
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from click.testing import CliRunner

from forebay.commands.classify import classify_command
from forebay.contracts.errors import ConfigurationError
from forebay.transports import HttpResolver
from forebay.transports.identity import view_of
from forebay.workers.providers import registry
from forebay.workers.providers.classification import DefaultClassifier
from forebay.workers.providers.facts import ProviderProfile, Source
from forebay.workers.providers.page import providers_page
from forebay.workers.providers.recorded import (
    RecordedAnswer,
    recorded_answers,
    replayed,
    stripped,
)
from forebay.workers.providers.refusal_log import RefusalLog
from forebay.workers.providers.registry import BUILT_IN, GENERIC, profile_of_host

REPO = Path(__file__).resolve().parents[2]
OPENAI = "api.openai.com"


def test_the_page_of_providers_is_current() -> None:
    page = (REPO / "docs/providers.md").read_text()
    assert page == providers_page(), (
        "run python -m forebay.workers.providers.page >docs/providers.md"
    )


@pytest.mark.parametrize("profile", BUILT_IN, ids=lambda profile: profile.name)
def test_each_fact_has_its_source(profile: ProviderProfile) -> None:
    parts = [profile.body, profile.usage, profile.refusals, profile.waits, profile.streams]
    sources = [one.source for one in (*profile.endpoints, *parts) if one is not None]
    assert len(sources) > len(profile.endpoints)
    for source in sources:
        assert isinstance(source, Source)
        assert source.page == "unverified" or source.read_on


@pytest.mark.parametrize("profile", BUILT_IN, ids=lambda profile: profile.name)
def test_a_profile_is_a_file_that_holds_a_table_and_nothing_else(profile: ProviderProfile) -> None:
    tree = ast.parse((REPO / f"workers/providers/{profile.name}.py").read_text())
    kinds = (ast.Expr, ast.Import, ast.ImportFrom, ast.Assign, ast.AnnAssign)
    assert {type(node).__name__ for node in tree.body if not isinstance(node, kinds)} == set()


def _literals(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the texts of a module that are no docstrings."""
    tree = ast.parse(path.read_text())
    loose = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        is_text = isinstance(node, ast.Constant) and isinstance(node.value, str)
        if is_text and id(node) not in loose:
            yield node.lineno, node.value


def test_nothing_but_profiles_names_a_provider() -> None:
    own = {f"{profile.name}.py" for profile in BUILT_IN}
    names = {profile.name for profile in BUILT_IN}
    hosts = {host.strip("*.") for profile in BUILT_IN for host in profile.hosts}
    # Packages whose exceptions are known by name, and examples in messages and on a page.
    allowed = {
        ("exception_kinds.py", ""),
        ("openai_client.py", "expected http:// or https:// with a host, as in"),
        ("allowlist.py", " is no host, expected HOST or HOST:PORT"),
        ("allowlist.py", " names no environment variable; expected NAME"),
        ("workflow.py", "openai"),  # the kind of a workflow's client
        ("workflow_page.py", ""),
    }
    found = [
        f"{path.name}:{line} {text}"
        for folder in ("forebay/transports", "workers", "coordinator", "contracts")
        for path in sorted((REPO / folder).rglob("*.py"))
        if not (path.parent.name == "providers" and path.name in own)
        for line, text in _literals(path)
        if text in names or any(host in text for host in hosts)
        if not any(path.name == name and text.startswith(start) for name, start in allowed)
    ]
    assert found == []


@pytest.mark.parametrize(
    ("url", "window"),
    [
        ("api.openai.com/v1/audio/transcriptions", "openai/m/chat"),
        ("api.openai.com/v1/responses", "openai/m/chat"),
        ("eu.api.openai.com/v1/responses", "openai/m/chat"),
        ("x.openai.azure.com/openai/v1/responses", "x.openai.azure.com/m/chat"),
        (
            "x.openai.azure.com/openai/deployments/m/images/generations",
            "x.openai.azure.com/m/image",
        ),
        ("y.services.ai.azure.com/anthropic/v1/messages", "y.services.ai.azure.com/m/chat"),
        ("claude.googleapis.com/v1/messages", "anthropic/m/chat"),
        ("generativelanguage.googleapis.com/v1/interactions", "gemini/m/chat"),
        ("api.mistral.ai/v1/fim/completions", "mistral/m/chat"),
        ("api.cohere.com/v2/chat", "cohere/m/chat"),
        ("api.cohere.com/v2/embed", "cohere/m/embedding"),
        ("api.groq.com/openai/v1/chat/completions", "groq/m/chat"),
        ("api.together.xyz/v1/embeddings", "together/m/embedding"),
        ("openrouter.ai/api/v1/chat/completions", "openrouter/m/chat"),
        ("api.deepseek.com/beta/completions", "deepseek/m/chat"),
        ("localhost:11434/api/generate", "localhost:11434/m/chat"),
        ("gpu-7:8000/pooling", "gpu-7:8000/m/embedding"),
        ("gpu-7:8080/generate_stream", "gpu-7:8080/m/chat"),
        ("gateway/api/embed", "gateway/m/embedding"),
    ],
)
def test_calls_that_name_the_model_in_the_body(url: str, window: str) -> None:
    request = httpx2.Request("POST", f"https://{url}", json={"model": "m"})
    assert str(HttpResolver()(view_of(request))) == window


BEDROCK = "bedrock-runtime.eu-west-1.amazonaws.com"
VERTEX = "europe-west1-aiplatform.googleapis.com"
PUBLISHED = f"{VERTEX}/v1/projects/p/locations/l/publishers"


@pytest.mark.parametrize(
    ("url", "window"),
    [
        (f"{BEDROCK}/model/anthropic.claude-v2:1/invoke", f"{BEDROCK}/anthropic.claude-v2:1/chat"),
        (f"{BEDROCK}/model/eu.nova/converse-stream", f"{BEDROCK}/eu.nova/chat"),
        (
            f"{BEDROCK}/model/arn%3Aaws%3Abedrock%3A%3Ainference-profile%2Feu.nova/converse",
            f"{BEDROCK}/arn:aws:bedrock::inference-profile/eu.nova/chat",
        ),
        (
            f"{BEDROCK}/model/amazon.titan-embed-text/invoke",
            f"{BEDROCK}/amazon.titan-embed-text/embedding",
        ),
        (f"{PUBLISHED}/anthropic/models/claude@1:streamRawPredict", f"{VERTEX}/claude@1/chat"),
        (f"{PUBLISHED}/google/models/gemini:generateContent", f"{VERTEX}/gemini/chat"),
        (
            f"{PUBLISHED}/google/models/text-embedding-5:predict",
            f"{VERTEX}/text-embedding-5/embedding",
        ),
        (
            "generativelanguage.googleapis.com/v1beta/models/gemini-3:streamGenerateContent?alt=sse",
            "gemini/gemini-3/chat",
        ),
        (
            "vpce-1.bedrock-runtime.eu-west-1.vpce.amazonaws.com/model/x/converse",
            "vpce-1.bedrock-runtime.eu-west-1.vpce.amazonaws.com/x/chat",
        ),
        (
            "generativelanguage.googleapis.com/v1beta/models/gemini-e:batchEmbedContents",
            "gemini/gemini-e/embedding",
        ),
        ("gateway:4000/gemini/v1beta/models/g:generateContent", "gateway:4000/g/chat"),
        ("gateway:4000/bedrock/model/x/converse", "gateway:4000/x/chat"),
    ],
)
def test_calls_that_name_the_model_in_the_path(url: str, window: str) -> None:
    request = httpx2.Request("POST", f"https://{url}", json={"messages": []})
    assert str(HttpResolver()(view_of(request))) == window


def test_the_model_of_a_form_is_read_and_its_files_are_not() -> None:
    files = {"file": ("speech.mp3", b"sound")}
    url = "https://api.openai.com/v1/audio/transcriptions"
    request = httpx2.Request("POST", url, data={"model": "whisper-1"}, files=files)
    view = view_of(request)
    assert view.body == {"model": "whisper-1"}
    assert str(HttpResolver()(view)) == "openai/whisper-1/chat"


@pytest.fixture
def warned(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    said: list[dict[str, Any]] = []
    monkeypatch.setattr(
        "forebay.transports.identity.log.warning",
        lambda event, **told: said.append({"event": event, **told}),
    )
    return said


def test_an_unknown_path_of_a_known_host_is_leased_and_warned_of_once(warned: list[Any]) -> None:
    resolver = HttpResolver({"gateway.example": "mine"})
    for host, window in (("api.mistral.ai", "mistral"), ("gateway.example", "mine")):
        for _ in range(2):
            request = httpx2.Request("POST", f"https://{host}/v9/dreams", json={"model": 7})
            assert str(resolver(view_of(request))) == f"{window}/unnamed/chat"
    assert [(one["event"], one["path"]) for one in warned] == [("path_not_known", "/v9/dreams")] * 2


def test_an_unknown_host_passes_and_is_warned_of_once_with_the_remedy(warned: list[Any]) -> None:
    resolver = HttpResolver()
    for path in ("/v9/dreams", "/v9/nightmares"):
        request = httpx2.Request("POST", f"https://models.example{path}", json={})
        assert resolver(view_of(request)) is None
    (warning,) = warned
    assert (warning["event"], warning["host"]) == ("host_not_known", "models.example")
    assert "HttpResolver({'models.example': 'name'})" in warning["remedy"]


RECORDED = list(recorded_answers((Path(__file__).parent / "recorded_answers.jsonl").read_text()))


@pytest.mark.parametrize("answer", RECORDED, ids=lambda one: f"{one.host}-{one.status}")
def test_each_recorded_answer_is_read_as_expected(answer: RecordedAnswer) -> None:
    outcome = replayed(answer).outcome
    usage = outcome.usage
    found = {
        **outcome.diagnostics,
        "kind": outcome.kind,
        "retry_after_seconds": outcome.retry_after_seconds,
        "scope": outcome.scope,
        "usage": None if usage is None else [usage.input_tokens, usage.output_tokens],
        "retryable": DefaultClassifier().is_retryable(outcome),
    }
    assert answer.expect
    for name, expected in answer.expect.items():
        seen = found.get(name)
        assert seen == (pytest.approx(expected) if type(expected) is float else expected), name


@pytest.mark.parametrize("answer", [one for one in RECORDED if one.status >= 400])
def test_an_sdks_exception_is_read_as_its_answer(answer: RecordedAnswer) -> None:
    headers = dict(answer.headers)
    request = httpx2.Request("POST", f"https://{answer.host}/v1")
    body = answer.body if isinstance(answer.body, str) else json.dumps(answer.body)
    response = httpx2.Response(answer.status, headers=headers, content=body, request=request)
    error = httpx2.HTTPStatusError("refused", request=request, response=response)
    outcome = DefaultClassifier().classify_exception(error, now=answer.at)
    wanted = replayed(answer).outcome
    assert outcome.kind is wanted.kind
    assert outcome.scope is wanted.scope
    if answer.headers["content-type"] == "application/json":
        assert outcome.retry_after_seconds == wanted.retry_after_seconds


class _Entry:
    name, value = "mine", "mine.profile:PROFILE"

    def __init__(self, profile: object) -> None:
        self._profile = profile

    def load(self) -> object:
        return self._profile


@pytest.fixture
def added(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[object]]:
    """Profiles that entry points name; append before the first look-up."""
    given: list[object] = []
    monkeypatch.setattr(
        importlib.metadata, "entry_points", lambda group: [_Entry(profile) for profile in given]
    )
    caches = (registry._added, registry._prepared, registry.profile_of_host, registry.profile_named)
    for cached in caches:
        cached.cache_clear()
    yield given
    for cached in caches:
        cached.cache_clear()


def test_an_entry_point_adds_a_profile_and_a_wrong_one_harms_nobody(added: list[object]) -> None:
    added += [ProviderProfile(name="mine", title="Mine", hosts=("api.mine.example",)), "no profile"]
    found = profile_of_host("api.mine.example")
    assert found is not None
    assert (found.name, found.usage) == ("mine", GENERIC.usage)
    assert profile_of_host(OPENAI) is not None


def test_no_text_of_a_refusal_comes_out() -> None:
    body = {"error": {"message": "the prompt and sk-secret: limit reached", "code": "sk secret"}}
    outcome = replayed(RecordedAnswer(host=OPENAI, status=429, body=body)).outcome
    assert "secret" not in json.dumps(outcome.diagnostics)


def test_a_recorded_answer_is_stripped_of_what_may_be_secret() -> None:
    headers = {
        "Set-Cookie": "s",
        "OpenAI-Organization": "o",
        "Retry-After": "3",
        "x-request-id": "r",
    }
    answer = RecordedAnswer(host=OPENAI, status=429, headers=headers)
    assert stripped(answer).headers == {"retry-after": "3"}


@pytest.mark.parametrize(
    "line",
    ["{}", "[]", "{", '{"host": "h", "status": 7}', '{"host": "h", "status": 200, "key": 1}'],
)
def test_a_line_that_is_no_recorded_answer_is_named(line: str) -> None:
    with pytest.raises(ConfigurationError, match="line 2 of the recorded answers"):
        list(recorded_answers(f"\n{line}"))


def test_the_command_says_how_an_answer_is_read(tmp_path: Path) -> None:
    file = tmp_path / "answers.jsonl"
    contributing = (REPO / "CONTRIBUTING.md").read_text()
    _, _, shown = contributing.partition("$ cat answers.jsonl\n")
    line, _, rest = shown.partition("\n")
    file.write_text(line)
    ran = CliRunner().invoke(classify_command, [str(file)])
    assert ran.output == rest.split("\n")[1] + "\n"
    ran = CliRunner().invoke(classify_command, [str(file), "--strip"])
    assert json.loads(ran.output)["headers"] == {"retry-after-ms": "1200"}


def test_a_refusal_that_no_waiting_cures_is_told_once() -> None:
    told: list[tuple[str, dict[str, Any]]] = []
    refusals = RefusalLog(lambda event, **fields: told.append((event, fields)))
    key = HttpResolver()(view_of(httpx2.Request("POST", f"https://{OPENAI}/v1/responses", json={})))
    assert key is not None
    for answer in RECORDED * 2:
        if answer.host == OPENAI:
            refusals.saw(key, replayed(answer).outcome)
    codes = [fields.get("error_code") for _, fields in told]
    assert len(set(codes)) == len(codes)
    assert {"request_too_large", "content_filter", "invalid_api_key", None} <= set(codes)
    assert ("hint_clamped", None) in [(event, fields.get("error_code")) for event, fields in told]
    assert all("remedy" in fields for event, fields in told if event == "request_refused")
