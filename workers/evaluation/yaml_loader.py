"""YAML as workflow files may use it; imports PyYAML, which is an extra."""

from __future__ import annotations

from typing import Any, Final, NoReturn

import yaml

from forebay.workers.evaluation.limits import MOST_DOCUMENT_VALUES

_LONGEST_NUMBER: Final = 100
_MERGE: Final = "tag:yaml.org,2002:merge"
_NUMBERS: Final = ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")


def parse_yaml(text: str) -> Any:
    """Return the value of a YAML text.

    Raises:
        ValueError: what is wrong, with line and column where they are known.
    """
    try:
        return yaml.load(text, _Loader)  # noqa: S506 - a SafeLoader
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f" (at line {mark.line + 1}, column {mark.column + 1})" if mark else ""
        raise ValueError(f"{error.problem}{where}") from None
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from None


def compose_yaml(text: str) -> yaml.Node | None:
    """Return the nodes of a YAML text that `parse_yaml` accepts, with their lines."""
    return yaml.compose(text, _Loader)


class _Loader(yaml.SafeLoader):
    """Refuses a key that stands twice, as TOML does, and what grows beyond its text."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    _refuse(f"the key {key.value!r} stands twice", key)
                seen.add(key.value)
        return super().construct_mapping(node, deep=deep)

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        merged = 0
        for key, value in node.value:
            if key.tag == _MERGE:
                for part in value.value if isinstance(value, yaml.SequenceNode) else [value]:
                    if isinstance(part, yaml.MappingNode):
                        self.flatten_mapping(part)
                    merged += len(part.value)
        if merged > MOST_DOCUMENT_VALUES:
            _refuse(f"<< merges more than {MOST_DOCUMENT_VALUES:,} keys", node)
        super().flatten_mapping(node)

    def construct_scalar(self, node: Any) -> Any:
        # A number such as 1:1:1 is of base 60, and reading it costs the square of its length.
        if node.tag in _NUMBERS and len(node.value) > _LONGEST_NUMBER:
            _refuse("the number is too long", node)
        return super().construct_scalar(node)


def _refuse(problem: str, node: yaml.Node) -> NoReturn:
    raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark)
