"""The kinds of columns of a workflow, as its file says them (design 05, *Generators*)."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, ConfigDict, Field, ValidationInfo, field_validator

from forebay.contracts.checks import check_name, shown
from forebay.contracts.errors import ConfigurationError
from forebay.contracts.settings import Settings


def _bounded_name(name: str) -> str:
    try:
        return check_name("name", name)
    except ConfigurationError as error:
        raise ValueError(str(error)) from error


_NOT_IN_FILE_NAMES: Final = '/\\:*?"<>|'


def _part_of_a_file_name(name: str, most_bytes: int) -> str:
    """Return a name that file names and command lines can bear on every system, else raise."""
    _bounded_name(name)
    length = len(name.encode())
    wrong = [char for char in name if char in _NOT_IN_FILE_NAMES or not char.isprintable()]
    if wrong:
        problem = f"holds {wrong[0]!r}"
    elif name[0] in " .-":
        problem = f"begins with {name[0]!r}"
    elif name[-1] in " .":
        problem = f"ends with {name[-1]!r}"
    elif length > most_bytes:
        problem = f"is {length} bytes long"
    else:
        return name
    raise ValueError(
        f"{shown(name)} {problem}, expected what can be part of a file name: at most {most_bytes}"
        f" bytes, none of {' '.join(_NOT_IN_FILE_NAMES)} and nothing unprintable, no blank or dot"
        " at an end, no dash at the beginning; rename it"
    )


Name = Annotated[str, AfterValidator(_bounded_name)]
WorkflowName = Annotated[str, AfterValidator(partial(_part_of_a_file_name, most_bytes=100))]
RunName = Annotated[str, AfterValidator(partial(_part_of_a_file_name, most_bytes=128))]
"""A run's name: its workflow's name and a number, so it may be longer than a workflow's."""
PathText = Annotated[str, Field(min_length=1, pattern=r"^[^\x00]+$")]
TemplateText = Annotated[str, Field(max_length=262_144)]


class WorkflowPart(Settings):
    """Base of all parts of a workflow: validation errors never print what was written."""

    model_config = ConfigDict(hide_input_in_errors=True)


class SeedColumn(WorkflowPart):
    """The root: columns that are read from a file, which says how many records there are.

    Attributes:
        names: columns of the file to take, in the order of the output.
        path: CSV, JSON Lines or Parquet; relative to the workflow file, absolute once loaded.
        key: columns among ``names`` that identify a record to people; dropped records are named
            by their values. By default the first of ``names``.
        delimiter: between the fields of a CSV; None takes the one of ``,``, ``;``, tab and ``|`` at
            which its first line parts into the names.
    """

    generator: Literal["seed"]
    names: Annotated[tuple[Name, ...], Field(min_length=1)]
    path: PathText
    delimiter: Annotated[str, Field(pattern=r"^[^\"\r\n]$")] | None = None
    key: tuple[Name, ...] = ()

    @field_validator("key")
    @classmethod
    def _check_key(cls, key: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        names = info.data.get("names", key)
        unknown = [name for name in key if name not in names]
        if unknown:
            raise ValueError(
                f"{shown(unknown[0])} is none of the columns that the seed takes, expected some of"
                f" {', '.join(map(shown, names))}; correct it or add it to names"
            )
        return key

    @property
    def key_names(self) -> tuple[str, ...]:
        """Names of the seed columns that identify a record to people."""
        return self.key or self.names[:1]

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the columns that this column makes."""
        return self.names

    @property
    def needs(self) -> tuple[str, ...]:
        """Nothing: a root has no inputs."""
        return ()

    @property
    def templates(self) -> Mapping[str, str]:
        """No templates."""
        return {}


class CellColumn(WorkflowPart):
    """Base of columns that are made record by record.

    Attributes:
        name: the one column it makes.
        needs: columns it waits for besides those that its templates use.
        skip_when: an expression over other columns, as inside ``{{ }}`` of a template; where it is
            true the cell is null and no task runs for it.
        propagate_skip: whether a cell is also skipped where a column that it needs was skipped.
    """

    name: Name
    needs: tuple[Name, ...] = ()
    skip_when: Annotated[str, Field(min_length=1, max_length=4096)] | None = None
    propagate_skip: bool = True

    @property
    def outputs(self) -> tuple[str, ...]:
        """Name of the column that this column makes."""
        return (self.name,)


class ExpressionColumn(CellColumn):
    """A column whose text is a template over other columns of the record."""

    generator: Literal["expression"]
    template: TemplateText

    @property
    def templates(self) -> Mapping[str, str]:
        """Field name to template text."""
        return {"template": self.template}


def condition_template(expression: str) -> TemplateText:
    """Return the template of an expression, whose text is ``true`` or ``false``."""
    return f"{{% if {expression} %}}true{{% else %}}false{{% endif %}}"


class ConditionColumn(WorkflowPart):
    """The hidden column of a ``skip_when``, evaluated for each record and never written.

    Attributes:
        name: the name of its value.
        expression: the ``skip_when`` of the columns that share it.
    """

    generator: Literal["condition"] = "condition"
    name: str
    expression: str

    @property
    def outputs(self) -> tuple[str, ...]:
        """Name of its value."""
        return (self.name,)

    @property
    def needs(self) -> tuple[str, ...]:
        """No columns beside those that the expression uses."""
        return ()

    @property
    def templates(self) -> Mapping[str, str]:
        """The expression as a template whose text is ``true`` or ``false``."""
        return {"skip_when": condition_template(self.expression)}


class ChatColumn(CellColumn):
    """Base of columns that a chat model makes.

    Attributes:
        model: a key of ``models``.
        prompt: template of the user's message.
        system: template of the system message; None sends none.
    """

    model: Name
    prompt: TemplateText
    system: TemplateText | None = None

    @property
    def templates(self) -> Mapping[str, str]:
        """Field name to template text."""
        system = {} if self.system is None else {"system": self.system}
        return {"prompt": self.prompt, **system}


class LlmTextColumn(ChatColumn):
    """A column whose value is the text of a model's answer.

    Attributes:
        on_cut: an answer that ``max_tokens`` of the model ended: ``drop`` drops its record as
            ``answer_cut``, ``keep`` writes it as it is.
    """

    generator: Literal["llm_text"]
    on_cut: Literal["drop", "keep"] = "drop"


class LlmStructuredColumn(ChatColumn):
    """A column whose value is the JSON of a model's answer, checked by a JSON Schema.

    Attributes:
        json_schema: the schema; written ``schema`` in files and in JSON.
        repair_attempts: how often the model is called again with the error.
    """

    # The field cannot be called schema: pydantic's BaseModel has a method of that name.
    model_config = ConfigDict(serialize_by_alias=True)

    generator: Literal["llm_structured"]
    json_schema: dict[str, Any] = Field(alias="schema")
    repair_attempts: Annotated[int, Field(ge=0, le=10)] = 2


class EmbeddingColumn(CellColumn):
    """A column whose value is the vector of a text, as a list of numbers.

    Attributes:
        model: a key of ``models``, which the provider serves for embeddings.
        text: template of what is embedded.
    """

    generator: Literal["embedding"]
    model: Name
    text: TemplateText

    @property
    def templates(self) -> Mapping[str, str]:
        """Field name to template text."""
        return {"text": self.text}
