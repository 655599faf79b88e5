"""The workflow file: read, checked whole before anything is submitted, resolved.

Rules: design 05, *Workflow files*.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

from pydantic import ValidationError

from forebay.contracts.checks import shown
from forebay.contracts.errors import WorkflowError
from forebay.contracts.runs import RUN_NUMBER_DIGITS
from forebay.contracts.workflow import (
    OutputSpec,
    PlannedColumn,
    ProviderSpec,
    SeedFile,
    Workflow,
)
from forebay.contracts.workflow_columns import SeedColumn
from forebay.workers.generators.seed_file import describe_seed
from forebay.workers.runs.files import RunFiles
from forebay.workers.runs.workflow_checks import check_models, find_seed, plan_columns
from forebay.workers.runs.workflow_draft import Draft, read_draft
from forebay.workers.runs.workflow_places import Mistakes, Place
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
        WorkflowError: all mistakes, a sentence each: place, what was expected and the remedy.
        ConfigurationError: YAML, and PyYAML is not installed.
    """
    mistakes = Mistakes(read_document(Path(path)))
    file = mistakes.file.path
    if not _check_utf8(mistakes, (), file.absolute()):
        mistakes.raise_any()  # as the seed's path has the same folder
    draft = read_draft(mistakes)
    check_models(mistakes, draft)
    planned = plan_columns(mistakes, draft)
    found = find_seed(mistakes, draft)
    seed = _describe_seed(mistakes, *found) if found else None
    output = _resolve_output(mistakes, draft, seed)
    _check_environment(mistakes, draft, environ)
    mistakes.raise_any()
    return apply_addresses(_resolved(draft, planned, found, seed, output, file), environ=environ)


def _resolved(
    draft: Draft,
    planned: list[PlannedColumn | None],
    found: tuple[int, SeedColumn] | None,
    seed: SeedFile | None,
    output: OutputSpec | None,
    file: Path,
) -> Workflow:
    """Return the workflow of a draft in which no mistake was found."""
    columns = [column for column in planned if column is not None]
    if draft.spec is None or (seed is None and draft.spec.records is None):
        raise WorkflowError(f"{file}: its mistakes could not be listed; please report this.")
    if found is not None and seed is not None:
        index, column = found
        resolved = column.model_copy(update={"path": seed.path})
        columns[index] = columns[index].model_copy(update={"spec": resolved})
    names = draft.spec.model_fields_set - {"columns"}  # what the file leaves out stays unset
    return Workflow(
        **{name: getattr(draft.spec, name) for name in names} | {"output": output},
        columns=tuple(columns),
        seed=seed,
        file=str(file.absolute()),
    )


def _check_environment(mistakes: Mistakes, draft: Draft, environ: Mapping[str, str]) -> None:
    """Note missing keys of providers, and invalid addresses in the environment."""
    for name, provider in draft.providers.items():
        if provider is None:
            continue
        try:
            _provider_here(name, provider, environ)
        except WorkflowError as error:
            mistakes.add(("providers", name, "base_url"), str(error))
        key = provider.api_key_env
        if key is not None and not environ.get(key):
            mistakes.add(
                ("providers", name, "api_key_env"),
                f"the environment variable {key} is not set here; set it to the provider's key, or"
                " take this line out if it needs none",
            )


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
        return ProviderSpec.model_validate(provider.model_dump() | {"base_url": address})
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]["ctx"]["error"]
        raise WorkflowError(
            f"environment variable {variable}: {problem}; correct or unset it."
        ) from None


def _describe_seed(mistakes: Mistakes, index: int, column: SeedColumn) -> SeedFile | None:
    path = mistakes.file.path.absolute().parent / _home_expanded(column.path)
    try:
        return describe_seed(path, column.names, column.delimiter)
    except WorkflowError as error:
        mistakes.add(("columns", index, "path"), str(error))
        return None


def _resolve_output(mistakes: Mistakes, draft: Draft, seed: SeedFile | None) -> OutputSpec | None:
    if draft.output is None:
        return None
    path = _home_expanded(draft.output.path)
    place = ("output", "path")
    try:
        path = path.absolute()
    except OSError as error:  # the current directory is gone
        mistakes.add(place, f"{path} cannot be reached: {error.strerror}; name another file")
        return None
    if not _check_utf8(mistakes, place, path):
        return None
    if not path.name or draft.output.path.endswith("/"):
        mistakes.add(place, f"{path} is a folder; name a file in it")
        return None
    name = draft.name if draft.spec else "run"  # a wrong name is noted, and may be no file's
    files = RunFiles(path, f"{name}-{'0' * RUN_NUMBER_DIGITS}")
    taken = [(Path(seed.path), "the seed file")] if seed else []
    try:
        problem = files.problem([*taken, (mistakes.file.path, "the workflow file")])
    except OSError as error:
        problem = f"{shown(str(path))} cannot be reached: {error.strerror}; name another file"
    if problem is not None:
        mistakes.add(place, problem)
    return OutputSpec(path=str(path))


def _check_utf8(mistakes: Mistakes, place: Place, path: Path) -> bool:
    """Note a path that cannot be sent to the workers as JSON."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        problem = f"the path {path} is not UTF-8; use folders and files whose names are"
        mistakes.add(place, problem)
        return False
    return True


def _home_expanded(path: str) -> Path:
    return Path(os.path.expanduser(path))  # noqa: PTH111 - Path's raises for an unknown user
