"""The workflow file: read, checked whole before anything is submitted, resolved (spec 05)."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path

from pydantic import ValidationError

from forebay.contracts.checks import shown
from forebay.contracts.errors import WorkflowError
from forebay.contracts.runs import RUN_NUMBER_DIGITS
from forebay.contracts.workflow import OutputSpec, ProviderSpec, SeedFile, Workflow, WorkflowSpec
from forebay.workers.generators.seed_file import describe_seed
from forebay.workers.runs.files import RunFiles
from forebay.workers.runs.workflow_checks import check_models, find_seed, plan_columns
from forebay.workers.runs.workflow_places import Place, WorkflowFile
from forebay.workers.runs.workflow_reading import read_document


def load_workflow(path: Path | str, *, environ: Mapping[str, str]) -> Workflow:
    """Read a workflow file and check all of it; nothing is started, written or sent.

    Args:
        path: TOML, or YAML where the suffix says so.
        environ: environment variables: addresses of providers and which keys there are.

    Returns:
        The workflow with absolute paths: the seed's from the folder of the file, the output's
        from the current directory.

    Raises:
        WorkflowError: one sentence with the place, what was expected and the remedy.
        ConfigurationError: YAML, and PyYAML is not installed.
    """
    file = read_document(Path(path))
    _check_utf8(file, (), file.path.absolute())
    try:
        # Strict and by way of JSON: no text is taken for a number, and lists become tuples.
        spec = WorkflowSpec.model_validate_json(json.dumps(file.document), strict=True)
    except ValidationError as error:
        # The cause would print what was written, which may be a key.
        raise file.refuse_form(error) from None
    check_models(file, spec)
    planned = plan_columns(file, spec)
    seed_index, seed = _describe_seed(file, spec)
    output = _resolve_output(file, spec, seed)
    columns = list(planned)
    resolved = spec.columns[seed_index].model_copy(update={"path": seed.path})
    columns[seed_index] = planned[seed_index].model_copy(update={"spec": resolved})
    workflow = Workflow(
        **{name: getattr(spec, name) for name in WorkflowSpec.model_fields if name != "columns"}
        | {"output": output},
        columns=tuple(columns),
        seed=seed,
        file=str(file.path.absolute()),
    )
    return apply_environment(workflow, environ=environ)


def apply_environment(workflow: Workflow, *, environ: Mapping[str, str]) -> Workflow:
    """Return the workflow as this process must use it: with its own addresses of providers.

    Raises:
        WorkflowError: such an address is none, or a provider's key is not in the environment.
    """
    here = apply_addresses(workflow, environ=environ)
    for name, provider in here.providers.items():
        key = provider.api_key_env
        if key is not None and not environ.get(key):
            raise WorkflowError(
                f"{workflow.file}: providers.{name}.api_key_env: the environment variable {key} is"
                " not set here; set it to the provider's key, or take this line out if it needs"
                " none."
            )
    return here


def apply_addresses(workflow: Workflow, *, environ: Mapping[str, str]) -> Workflow:
    """Return the workflow with the addresses that this process reaches its providers by.

    ``FOREBAY_PROVIDER_<NAME>_BASE_URL`` replaces an address, for a process that reaches a provider
    another way; ``<NAME>`` is the provider's name in capitals with ``_`` for all but letters and
    digits.

    Raises:
        WorkflowError: such an address is none.
    """
    providers = {
        name: _provider_here(name, provider, environ)
        for name, provider in workflow.providers.items()
    }
    return workflow.model_copy(update={"providers": providers})


def _provider_here(name: str, provider: ProviderSpec, environ: Mapping[str, str]) -> ProviderSpec:
    variable = f"FOREBAY_PROVIDER_{re.sub('[^A-Z0-9]', '_', name.upper())}_BASE_URL"
    address = environ.get(variable)
    if not address:
        return provider
    try:
        return ProviderSpec(base_url=address, api_key_env=provider.api_key_env, kind=provider.kind)
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]["ctx"]["error"]
        raise WorkflowError(
            f"environment variable {variable}: {problem}; correct or unset it."
        ) from None


def _describe_seed(file: WorkflowFile, spec: WorkflowSpec) -> tuple[int, SeedFile]:
    index, column = find_seed(file, spec)
    path = file.path.absolute().parent / _home_expanded(column.path)
    try:
        return index, describe_seed(path, column.names)
    except WorkflowError as error:
        raise file.refuse(("columns", index, "path"), str(error)) from error


def _resolve_output(file: WorkflowFile, spec: WorkflowSpec, seed: SeedFile) -> OutputSpec:
    path = _home_expanded(spec.output.path)
    place = ("output", "path")
    try:
        path = path.absolute()
    except OSError as error:  # the current directory is gone
        raise file.refuse(
            place, f"{path} cannot be reached: {error.strerror}; name another file"
        ) from error
    _check_utf8(file, place, path)
    if not path.name or spec.output.path.endswith("/"):
        raise file.refuse(place, f"{path} is a folder; name a file in it")
    files = RunFiles(path, f"{spec.name}-{'0' * RUN_NUMBER_DIGITS}")
    taken = ((Path(seed.path), "the seed file"), (file.path, "the workflow file"))
    try:
        problem = files.problem(taken)
    except OSError as error:
        raise file.refuse(
            place, f"{shown(str(path))} cannot be reached: {error.strerror}; name another file"
        ) from error
    if problem is not None:
        raise file.refuse(place, problem)
    return OutputSpec(path=str(path))


def _check_utf8(file: WorkflowFile, place: Place, path: Path) -> None:
    """Refuse a path that cannot be told to the workers, which is told as JSON."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        raise file.refuse(
            place, f"the path {path} is not UTF-8; use folders and files whose names are"
        ) from None


def _home_expanded(path: str) -> Path:
    return Path(os.path.expanduser(path))  # noqa: PTH111 - Path's raises for an unknown user
