"""What is shipped beside the code: the distribution, the image, the example."""

from __future__ import annotations

import csv
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
import yaml
from jinja2 import StrictUndefined, meta
from jinja2.sandbox import SandboxedEnvironment

REPO = Path(__file__).resolve().parents[2]
EXAMPLE = REPO / "examples" / "support_triage"


def read_toml(path: Path) -> dict[str, Any]:
    return tomllib.loads(path.read_text(encoding="utf-8"))


def setuptools_settings() -> dict[str, Any]:
    settings: dict[str, Any] = read_toml(REPO / "pyproject.toml")["tool"]["setuptools"]
    return settings


def folder_of(package: str) -> Path:
    """Return where a build finds a package: by the longest mapped name above it."""
    mapped: dict[str, str] = setuptools_settings()["package-dir"]
    above = max((name for name in mapped if f"{package}.".startswith(f"{name}.")), key=len)
    rest = package.removeprefix(above).replace(".", "/").lstrip("/")
    return REPO / mapped[above] / rest


SOURCE_FOLDERS = ("contracts", "coordinator", "lua", "workers")


def dockerfile_lines() -> list[str]:
    return (REPO / "Dockerfile").read_text().splitlines()


def seed_rows() -> list[dict[str, str]]:
    with (EXAMPLE / "messages.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, strict=True))


def workflow() -> dict[str, Any]:
    return read_toml(EXAMPLE / "workflow.toml")


def workflow_column(name: str) -> dict[str, Any]:
    return next(column for column in workflow()["columns"] if column.get("name") == name)


# --- the distribution


@pytest.mark.parametrize("name", setuptools_settings()["packages"])
def test_every_listed_package_exists(name: str) -> None:
    assert folder_of(name).is_dir()
    assert (folder_of(name) / "__init__.py").is_file()


def test_no_package_on_disk_is_forgotten_in_the_list() -> None:
    listed = {folder_of(name) for name in setuptools_settings()["packages"]}
    on_disk = {
        init.parent
        for top in (*SOURCE_FOLDERS, "forebay")
        for init in (REPO / top).rglob("__init__.py")
        if not any((REPO / "forebay" / link) in init.parents for link in SOURCE_FOLDERS)
    }
    assert on_disk == listed - {EXAMPLE}


@pytest.mark.parametrize("name", [*SOURCE_FOLDERS, "demo/support_triage"])
def test_link_in_forebay_is_relative_and_leads_where_the_build_looks(name: str) -> None:
    link = REPO / "forebay" / name
    target = folder_of(f"forebay.{name.replace('/', '.')}")
    assert link.readlink() == Path(*[".."] * len(Path(name).parts)) / target.relative_to(REPO)
    assert link.resolve() == target


def test_every_mapped_folder_has_a_link() -> None:
    mapped = set(setuptools_settings()["package-dir"]) - {"forebay"}
    links = {path for path in (REPO / "forebay").rglob("*") if path.is_symlink()}
    assert {".".join(link.relative_to(REPO).parts) for link in links} == mapped


def test_the_distribution_claims_no_other_top_level_name() -> None:
    assert {name.partition(".")[0] for name in setuptools_settings()["packages"]} == {"forebay"}
    claimed = {name for name, owners in packages_distributions().items() if "forebay" in owners}
    assert claimed - {"forebay"} == set()


@pytest.mark.parametrize("name", ["contracts", "coordinator", "workers", "forebay"])
def test_package_tells_that_it_is_typed(name: str) -> None:
    assert (REPO / name / "py.typed").is_file()


def test_license_is_the_one_that_the_metadata_names() -> None:
    project = read_toml(REPO / "pyproject.toml")["project"]
    text = (REPO / "LICENSE").read_text()
    assert project["license"] == "Apache-2.0"
    assert "Apache License\n                           Version 2.0, January 2004" in text
    assert "Copyright Forebay contributors" in text
    assert "[yyyy]" not in text


# --- the image


def test_image_installs_every_top_level_package() -> None:
    copied = [line.split()[1] for line in dockerfile_lines() if line.startswith("COPY ")]
    admitted = (REPO / ".dockerignore").read_text().split()
    for name in (*SOURCE_FOLDERS, "forebay", "examples"):
        assert name in copied
        assert f"!{name}" in admitted


def test_image_runs_forebay_as_another_user_than_root() -> None:
    final_stage = "\n".join(dockerfile_lines()).rpartition("\nFROM ")[2].splitlines()
    assert "USER forebay" in final_stage
    assert final_stage[-1] == 'ENTRYPOINT ["forebay"]'


def test_image_keeps_build_tools_out_of_the_final_stage() -> None:
    final_stage = "\n".join(dockerfile_lines()).rpartition("\nFROM ")[2]
    assert "pip" not in final_stage
    assert "apt" not in final_stage
    assert "COPY --from=build /opt/venv /opt/venv" in final_stage


# --- the hooks


def test_hooks_need_no_network() -> None:
    config = yaml.safe_load((REPO / ".pre-commit-config.yaml").read_text())
    assert [repo["repo"] for repo in config["repos"]] == ["local"]
    hooks = {hook["id"]: hook for hook in config["repos"][0]["hooks"]}
    assert set(hooks) == {"ruff-check", "ruff-format", "mypy", "import-linter", "commit-subject"}
    for hook in hooks.values():
        assert hook["language"] == "system"
        assert hook["entry"].startswith((".venv/bin/", "make "))


# --- the example


def test_seed_has_at_least_200_distinct_messages() -> None:
    rows = seed_rows()
    assert len({row["message"] for row in rows}) == len(rows) >= 200
    assert [row["ticket_id"] for row in rows] == [f"T-{n:04d}" for n in range(1, len(rows) + 1)]
    assert {row["channel"] for row in rows} == {"email", "chat", "phone"}
    assert all(row["customer"] for row in rows)
    assert all(60 <= len(row["message"]) <= 350 for row in rows)


@pytest.mark.parametrize("awkward", [",", '"', "\n", "é", "🎉", "{{"])
def test_seed_holds_text_that_a_careless_reader_breaks_on(awkward: str) -> None:
    assert any(awkward in row["message"] for row in seed_rows())


def test_workflow_names_the_columns_that_its_seed_file_has() -> None:
    seed = workflow()["columns"][0]
    assert seed["generator"] == "seed"
    assert (EXAMPLE / seed["path"]) == EXAMPLE / "messages.csv"
    assert seed["names"] == list(seed_rows()[0])


def test_workflow_uses_only_models_and_providers_that_it_defines() -> None:
    document = workflow()
    aliases = {column["model"] for column in document["columns"] if "model" in column}
    assert aliases == set(document["models"])
    assert {model["provider"] for model in document["models"].values()} == set(
        document["providers"]
    )


def test_aliases_of_the_example_share_one_provider_model() -> None:
    models = workflow()["models"].values()
    assert {(model["provider"], model["model"]) for model in models} == {("local", "mock-large")}
    assert {model["max_parallel_requests"] for model in models} == {32}


def test_every_template_asks_only_for_columns_before_it() -> None:
    environment = SandboxedEnvironment(undefined=StrictUndefined)
    known: set[str] = set()
    for column in workflow()["columns"]:
        template = column.get("prompt", column.get("template", ""))
        assert meta.find_undeclared_variables(environment.parse(template)) <= known
        known |= set(column.get("names", [column.get("name")]))
    assert {"summary", "triage", "route"} < known


@pytest.mark.parametrize(
    ("urgency", "needs_human", "route"),
    [
        ("critical", False, "duty-manager"),
        ("high", True, "desk-billing"),
        ("low", False, "auto-reply"),
    ],
)
def test_route_follows_from_a_triage_that_the_schema_admits(
    urgency: str, needs_human: bool, route: str
) -> None:
    triage = {
        "category": "billing",
        "urgency": urgency,
        "sentiment": "neutral",
        "needs_human": needs_human,
    }
    jsonschema_rs.validate(workflow_column("triage")["schema"], triage)
    template = workflow_column("route")["template"]
    environment = SandboxedEnvironment(undefined=StrictUndefined)
    assert environment.from_string(template).render(triage=triage) == route


@pytest.mark.parametrize(
    "broken", [{"urgency": "someday"}, {"mood": "grim"}, {"needs_human": "no"}]
)
def test_schema_refuses_a_triage_that_no_rule_expects(broken: dict[str, str]) -> None:
    triage = {"category": "other", "urgency": "low", "sentiment": "neutral", "needs_human": True}
    with pytest.raises(jsonschema_rs.ValidationError):
        jsonschema_rs.validate(workflow_column("triage")["schema"], {**triage, **broken})
