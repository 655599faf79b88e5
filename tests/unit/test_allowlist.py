"""What a worker lets the workflows of others use (design 06, *Trust*)."""

from __future__ import annotations

from pathlib import Path

import pytest

from forebay.contracts.errors import ConfigurationError, RunRefused
from forebay.contracts.workflow import Workflow
from forebay.workers.runs.allowlist import Allowlist, Host, options_for
from forebay.workers.runs.workflow_file import apply_addresses, load_workflow

WORKER = "host-1:4711"


@pytest.fixture
def workflow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workflow:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "seed.csv").write_text("id\n1\n")
    (tmp_path / "flow.toml").write_text(
        """
        name = "w"
        output.path = "out.jsonl"
        providers.beta = {base_url = "https://api.beta.example/v1", api_key_env = "BETA_KEY"}
        providers.local.base_url = "http://127.0.0.1:8089/v1"
        columns = [{generator = "seed", names = ["id"], path = "data/seed.csv"}]
        """
    )
    return load_workflow(tmp_path / "flow.toml", environ={"BETA_KEY": "k"})


ENOUGH = {"env": ["BETA_KEY"], "paths": ["data"], "hosts": ["api.beta.example", "127.0.0.1:8089"]}


def refusal(workflow: Workflow, **allowed: list[str]) -> str:
    with pytest.raises(RunRefused) as caught:
        Allowlist.of(**{**ENOUGH, **allowed}).check(workflow, WORKER)
    assert WORKER in str(caught.value)
    return str(caught.value)


def test_what_a_worker_was_started_with_is_enough(workflow: Workflow) -> None:
    assert Allowlist.of(**ENOUGH).check(workflow, WORKER) == workflow


def test_a_worker_that_was_started_with_nothing_refuses_all_of_it_in_one_sentence(
    workflow: Workflow,
) -> None:
    with pytest.raises(RunRefused) as caught:
        Allowlist().check(workflow, WORKER)
    seed = workflow.seed.path
    assert str(caught.value) == (
        "worker host-1:4711 may not send variable BETA_KEY to api.beta.example:443, as provider"
        " 'beta' asks, nor call 127.0.0.1:8089, the base_url of provider 'local', nor read the"
        f" seed file {seed}; start it with --allow-env BETA_KEY=api.beta.example:443 --allow-host"
        f" 127.0.0.1:8089 --allow-path {Path(seed).parent} if workflows may do so."
    )


def test_the_options_of_a_workflow_allow_it_and_no_other(workflow: Workflow) -> None:
    options = options_for(workflow)
    given: dict[str, list[str]] = {}
    for option, value in zip(options[::2], options[1::2], strict=True):
        given.setdefault(option, []).append(value)
    allowed = Allowlist.of(
        env=given["--allow-env"], paths=given["--allow-path"], hosts=given["--allow-host"]
    )
    assert allowed.check(workflow, WORKER) == workflow
    other = workflow.providers["beta"].model_copy(update={"base_url": "http://127.0.0.1:8089"})
    sending = workflow.model_copy(update={"providers": {"beta": other}})
    with pytest.raises(RunRefused, match=r"send variable BETA_KEY to 127\.0\.0\.1:8089"):
        allowed.check(sending, WORKER)


@pytest.mark.parametrize(
    ("allowed", "said"),
    [
        ({"env": []}, "send variable BETA_KEY to api.beta.example:443"),
        ({"env": ["beta_key", "BETA_KEY2"]}, "send variable BETA_KEY"),
        ({"env": ["BETA_KEY=other.example"]}, "send variable BETA_KEY to api.beta.example:443"),
        ({"env": ["BETA_KEY=api.beta.example:80"]}, "send variable BETA_KEY"),
        ({"hosts": ["127.0.0.1"]}, "call api.beta.example:443"),
        ({"hosts": ["api.beta.example:444", "127.0.0.1"]}, "call api.beta.example:443"),
        ({"hosts": ["api.beta.example", "127.0.0.1:80"]}, "call 127.0.0.1:8089"),
        ({"hosts": ["beta.example", "127.0.0.1:8089"]}, "call api.beta.example:443"),
        ({"paths": []}, "read the seed file"),
        ({"paths": ["dat", "data/seed"]}, "read the seed file"),
    ],
)
def test_each_thing_that_is_missing_is_named(
    workflow: Workflow, allowed: dict[str, list[str]], said: str
) -> None:
    assert said in refusal(workflow, **allowed)


def test_a_variable_that_is_bound_to_a_host_is_for_that_host_alone(workflow: Workflow) -> None:
    allowed = Allowlist.of(
        env=["BETA_KEY=api.beta.example:443"], paths=["data"], hosts=["127.0.0.1", "evil.example"]
    )
    assert allowed.check(workflow, WORKER) == workflow
    evil = workflow.providers["beta"].model_copy(update={"base_url": "https://evil.example"})
    elsewhere = workflow.model_copy(update={"providers": {"beta": evil}})
    with pytest.raises(RunRefused, match=r"send variable BETA_KEY to evil\.example:443"):
        allowed.check(elsewhere, WORKER)


@pytest.mark.parametrize(
    ("url", "same"),
    [
        ("https://API.Beta.Example./v1", True),
        ("https://api.beta.example:443/v1", True),
        ("http://api.beta.example/v1", False),
        ("https://api.beta.example:8443/v1", False),
        ("https://api.beta.example.evil.example/v1", False),
        ("https://evil.example/api.beta.example:443", False),
        ("https://evil.example\\.api.beta.example", False),
        ("https://api%2ebeta.example", False),
        ("https://xapi.beta.example", False),
    ],
)
def test_hosts_are_compared_as_they_are_called(url: str, same: bool) -> None:
    assert Host.parse("api.beta.example:443").covers(Host.of_url(url)) is same


@pytest.mark.parametrize(
    ("option", "url"),
    [
        ("127.0.0.1:8089", "http://127.0.0.1:8089/v1"),
        ("127.0.0.1", "http://127.0.0.1:8089/v1"),
        ("[::1]:8089", "http://[::1]:8089/v1"),
        ("[::1]", "http://[0:0:0:0:0:0:0:1]:8089/v1"),
        ("::1", "http://[::1]:8089/v1"),
        ("[::ffff:0:1]:80", "http://[::FFFF:0:1]/v1"),
        ("localhost:80", "http://LOCALHOST/v1"),
        ("exämple.com", "https://xn--exmple-cua.com/v1"),
        ("under_score.internal", "http://under_score.internal"),
    ],
)
def test_a_host_is_allowed_in_every_form_in_which_it_is_written(option: str, url: str) -> None:
    assert Host.parse(option).covers(Host.of_url(url))


@pytest.mark.parametrize(
    ("option", "url"),
    [
        ("127.0.0.1", "http://localhost"),
        ("127.0.0.1", "http://2130706433"),
        ("127.0.0.1", "http://0x7f.1"),
        ("127.0.0.1", "http://127.1"),
        ("127.0.0.1", "http://[::ffff:127.0.0.1]"),
    ],
)
def test_another_name_of_an_allowed_host_is_another_host(option: str, url: str) -> None:
    assert not Host.parse(option).covers(Host.of_url(url))


@pytest.mark.parametrize(
    "host",
    [
        *("", ":80", "*", "*.example", "http://a", "a/b", "u@a", "a?b", "a:b", "a:99999", "a b"),
        *("[::1", "a:"),
    ],
)
def test_an_option_that_names_no_host_is_refused(host: str) -> None:
    with pytest.raises(ConfigurationError, match=r"is no host, expected HOST or HOST:PORT"):
        Allowlist.of(hosts=[host])
    with pytest.raises(ConfigurationError, match=r"is no host|names no environment variable"):
        Allowlist.of(env=[f"KEY={host}"])


@pytest.mark.parametrize("name", ["", "=a", "sk-secret-key", "A B", "1A"])
def test_an_option_that_names_no_variable_is_refused(name: str) -> None:
    with pytest.raises(ConfigurationError, match="names no environment variable"):
        Allowlist.of(env=[name])


def test_a_link_that_leads_out_of_an_allowed_folder_is_not_in_it(
    workflow: Workflow, tmp_path: Path
) -> None:
    (tmp_path / "secret.csv").write_text("id\n1\n")
    (tmp_path / "data" / "link.csv").symlink_to(tmp_path / "secret.csv")
    for path in ("data/link.csv", "data/../secret.csv"):
        seed = workflow.seed.model_copy(update={"path": str(tmp_path / path)})
        with pytest.raises(RunRefused, match="read the seed file"):
            Allowlist.of(**ENOUGH).check(workflow.model_copy(update={"seed": seed}), WORKER)


def test_a_link_is_resolved_once_so_that_it_cannot_lead_elsewhere_later(
    workflow: Workflow, tmp_path: Path
) -> None:
    (tmp_path / "linked").symlink_to(tmp_path / "data")
    seed = workflow.seed.model_copy(update={"path": str(tmp_path / "linked" / "seed.csv")})
    linked = workflow.model_copy(update={"seed": seed})
    for paths in (["data"], ["linked"]):
        allowed = Allowlist.of(**{**ENOUGH, "paths": paths})
        assert allowed.check(linked, WORKER).seed.path == str(tmp_path / "data" / "seed.csv")


def test_the_address_that_a_worker_was_started_with_is_allowed(workflow: Workflow) -> None:
    environ = {"FOREBAY_PROVIDER_LOCAL_BASE_URL": "http://provider:8089/v1", "OTHER": "http://x"}
    allowed = Allowlist.of(
        env=["BETA_KEY"], paths=["data"], hosts=["api.beta.example"], environ=environ
    )
    allowed.check(apply_addresses(workflow, environ=environ), WORKER)
    with pytest.raises(RunRefused, match=r"call 127\.0\.0\.1:8089"):
        allowed.check(workflow, WORKER)
