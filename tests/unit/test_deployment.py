"""docker-compose.yml and examples/kubernetes fit their schemas and this version's options."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import kubernetes_validate
import pytest
import yaml

from forebay.cli import cli

REPO = Path(__file__).resolve().parents[2]
COMPOSE = REPO / "docker-compose.yml"
KUBERNETES = REPO / "examples/kubernetes/fleet.yaml"
EXAMPLE = REPO / "examples" / "support_triage"
WORKFLOW_IN_IMAGE = "/app/examples/support_triage/workflow.toml"
REDIS_URL = "redis://redis:6379"


def compose_services() -> dict[str, Any]:
    services: dict[str, Any] = yaml.safe_load(COMPOSE.read_text())["services"]
    return services


def resources() -> list[dict[str, Any]]:
    return list(yaml.safe_load_all(KUBERNETES.read_text()))


def deployments() -> dict[str, dict[str, Any]]:
    """Return the pod of each Deployment."""
    return {
        each["metadata"]["name"]: each["spec"]["template"]["spec"]
        for each in resources()
        if each["kind"] == "Deployment"
    }


def workflow() -> dict[str, Any]:
    return tomllib.loads((EXAMPLE / "workflow.toml").read_text())


def command_lines() -> Iterator[Any]:
    """Yield each command line of Forebay in the two files."""
    for name, service in compose_services().items():
        if "command" in service and name != "redis":
            yield pytest.param(service["command"], id=f"compose {name}")
        check = service.get("healthcheck", {}).get("test", [])
        if "forebay" in check:
            yield pytest.param(check[2:], id=f"compose {name} health")
    for name, pod in deployments().items():
        yield pytest.param(pod["containers"][0]["args"], id=f"kubernetes {name}")


@pytest.mark.parametrize("line", [*command_lines()])
def test_command_line_has_options_of_this_version(line: list[str], monkeypatch: Any) -> None:
    monkeypatch.setenv("FOREBAY_URL", REDIS_URL)
    monkeypatch.setattr(click.Path, "convert", lambda _self, value, *_: value)  # paths of the image
    command = cli.get_command(click.Context(cli), line[0])
    assert command is not None
    assert command.make_context(line[0], line[1:])


def test_compose_file_fits_the_compose_specification() -> None:
    checker = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec"]
    done = subprocess.run([*checker, str(COMPOSE)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("version", ["1.33", "1.37"])
def test_kubernetes_resources_fit_their_schemas(version: str) -> None:
    for resource in resources():
        kubernetes_validate.validate(resource, version, strict=True)


def test_each_service_and_budget_of_kubernetes_selects_one_deployment() -> None:
    labels = [
        each["spec"]["template"]["metadata"]["labels"]
        for each in resources()
        if each["kind"] == "Deployment"
    ]
    for each in resources():
        if each["kind"] in {"Service", "PodDisruptionBudget"}:
            selector = each["spec"]["selector"]
            assert labels.count(selector.get("matchLabels", selector)) == 1


def test_pods_live_longer_than_their_grace() -> None:
    for pod in deployments().values():
        [container] = pod["containers"]
        arguments = container["args"]
        if "--grace" in arguments:
            grace = int(arguments[arguments.index("--grace") + 1])
            assert pod["terminationGracePeriodSeconds"] > grace + 10


def test_commands_of_probes_run() -> None:
    [proxy] = deployments()["forebay-proxy"]["containers"]
    compile(proxy["lifecycle"]["preStop"]["exec"]["command"][2], "preStop", "exec")
    for service in compose_services().values():
        check = service.get("healthcheck", {}).get("test", [])
        if "python" in check:
            compile(check[3], "healthcheck", "exec")


@pytest.mark.parametrize(
    ("service", "command"),
    [
        ("provider", ["mock-provider", "--host", "0.0.0.0", "--port", "8089"]),
        ("worker", ["worker", "--url", REDIS_URL]),
        ("arq-worker", ["worker", "app.WorkerSettings", "--url", REDIS_URL]),
        ("ops", ["ops", "--url", REDIS_URL, "--host", "0.0.0.0"]),
        ("run", ["run", WORKFLOW_IN_IMAGE, "--url", REDIS_URL]),
    ],
)
def test_service_runs_its_command(service: str, command: list[str]) -> None:
    assert compose_services()[service]["command"][: len(command)] == command


def test_compose_has_these_services_and_no_others() -> None:
    assert set(compose_services()) == {
        "redis",
        "provider",
        "worker",
        "arq-worker",
        "ops",
        "run",
        "jobs",
    }


def test_every_forebay_service_uses_the_one_image() -> None:
    forebay = {name: spec for name, spec in compose_services().items() if name != "redis"}
    assert {spec["image"] for spec in forebay.values()} == {"forebay:local"}
    assert [name for name, spec in forebay.items() if "build" in spec] == ["provider"]


def test_redis_keeps_its_keys_and_evicts_none() -> None:
    redis = compose_services()["redis"]
    command = " ".join(redis["command"])
    assert "--appendonly yes" in command
    assert "--maxmemory-policy noeviction" in command
    assert redis["volumes"] == ["redis-data:/data"]
    assert "healthcheck" in redis


def test_redis_has_no_host_port_and_the_others_are_on_loopback() -> None:
    services = compose_services()
    assert "ports" not in services["redis"]
    ports = [port for spec in services.values() for port in spec.get("ports", [])]
    assert ports
    assert all(port.startswith("127.0.0.1:") for port in ports)


def test_run_is_started_on_demand_and_finds_four_workers() -> None:
    services = compose_services()
    assert services["worker"]["deploy"]["replicas"] == 4
    assert [name for name, spec in services.items() if "profiles" in spec] == ["run", "jobs"]
    assert "worker" in services["run"]["depends_on"]


def test_run_and_workers_see_the_same_files_and_the_same_provider() -> None:
    services = compose_services()
    address = {"FOREBAY_PROVIDER_LOCAL_BASE_URL": "http://provider:8089/v1"}
    assert "local" in workflow()["providers"]
    for name in ("run", "worker"):
        assert services[name]["environment"] == address
        assert services[name]["volumes"] == ["out:/app/out"]
    in_repository = REPO / Path(WORKFLOW_IN_IMAGE).relative_to("/app")
    assert in_repository == EXAMPLE / "workflow.toml"
    assert in_repository.is_file()
