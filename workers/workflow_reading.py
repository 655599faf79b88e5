"""From the bytes of a workflow file to a document of plain JSON values."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from forebay.contracts.errors import ConfigurationError, WorkflowError
from forebay.contracts.extras import how_to_install
from forebay.workers.workflow_places import Place, WorkflowFile

if TYPE_CHECKING:
    import yaml

_LARGEST_INTEGER: Final = 2**63 - 1


def read_document(path: Path) -> WorkflowFile:
    """Read a TOML file, or a YAML file where the suffix is ``.yaml`` or ``.yml``.

    Raises:
        WorkflowError: unreadable, not UTF-8, a syntax error (with line and column), a key that
            stands twice, or a value that JSON does not have.
        ConfigurationError: YAML, and PyYAML is not installed.
    """
    try:
        # With or without the mark that some editors put in front of UTF-8.
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise WorkflowError(
            f"{path}: cannot be read: {error.strerror}; correct the path or its permissions."
        ) from error
    except UnicodeDecodeError as error:
        raise WorkflowError(f"{path}: not UTF-8; save the file as UTF-8.") from error
    try:
        if path.suffix.lower() in {".yaml", ".yml"}:
            document = _parse_yaml(path, text)
        else:
            document = _parse_toml(path, text)
        file = WorkflowFile(path=path, document=document if isinstance(document, dict) else {})
        if not isinstance(document, dict):
            raise file.refuse((), "expected keys and values; start with name = ...")
        _check_plain(file, (), document)
    except RecursionError:
        raise WorkflowError(f"{path}: nested too deep; make it flatter.") from None
    return file


def _parse_toml(path: Path, text: str) -> Any:
    try:
        return tomllib.loads(text)
    except ValueError as error:  # also what int() raises for a number of thousands of digits
        raise WorkflowError(f"{path}: TOML syntax: {error}; correct it there.") from error


def _parse_yaml(path: Path, text: str) -> Any:
    try:
        import yaml  # noqa: PLC0415 - YAML is an extra
    except ImportError as error:
        raise ConfigurationError(
            f"{path}: YAML needs PyYAML, which is not installed; run {how_to_install('yaml')}, or"
            " write the workflow as TOML."
        ) from error

    class Loader(yaml.SafeLoader):
        """Refuses a key that stands twice, as TOML does; the last would win silently."""

        def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
            seen: set[str] = set()
            for key, _ in node.value:
                if isinstance(key, yaml.ScalarNode):
                    if key.value in seen:
                        raise yaml.constructor.ConstructorError(
                            None, None, f"the key {key.value!r} stands twice", key.start_mark
                        )
                    seen.add(key.value)
            return super().construct_mapping(node, deep=deep)

    try:
        return yaml.load(text, Loader)  # noqa: S506 - a SafeLoader
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f" (at line {mark.line + 1}, column {mark.column + 1})" if mark else ""
        raise WorkflowError(
            f"{path}: YAML syntax: {error.problem}{where}; correct it there."
        ) from error
    except (yaml.YAMLError, ValueError) as error:
        raise WorkflowError(f"{path}: YAML syntax: {error}; correct it.") from error


def _check_plain(file: WorkflowFile, place: Place, value: Any) -> None:
    """Refuse what JSON cannot carry to the workers as it is."""
    match value:
        case None | bool() | str():
            return
        case int() if abs(value) <= _LARGEST_INTEGER:
            return
        case float() if math.isfinite(value):
            return
        case list():
            for index, item in enumerate(value):
                _check_plain(file, (*place, index), item)
        case Mapping():
            for key, item in value.items():
                if not isinstance(key, str):
                    raise file.refuse((*place, str(key)), "the key is not text; put it in quotes")
                _check_plain(file, (*place, key), item)
        case int() | float():
            raise file.refuse(place, "the number is too large or not finite; use a smaller one")
        case _:
            kind = type(value).__name__
            raise file.refuse(place, f"expected text or a number, not a {kind}; put it in quotes")
