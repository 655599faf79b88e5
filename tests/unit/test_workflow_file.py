from __future__ import annotations

import json
import os
import re
import sys
from pathlib import Path

import pytest

from forebay.contracts.errors import ConfigurationError, WorkflowError
from forebay.contracts.workflow import TaskType, Workflow
from forebay.contracts.workflow_columns import ExpressionColumn, SeedColumn
from forebay.workers.runs.workflow_file import apply_addresses, load_workflow

REPO = Path(__file__).resolve().parents[2]

HEAD = """
name = "letters"
[output]
path = "out.jsonl"
[providers.local]
base_url = "http://127.0.0.1:8089/v1/"
[models.writer]
provider = "local"
model = "large"
max_parallel_requests = 8
"""
SEED = """
[[columns]]
generator = "seed"
names = ["id", "text"]
path = "seed.csv"
"""
SUMMARY = """
[[columns]]
generator = "llm_text"
name = "summary"
model = "writer"
prompt = "Sum up: {{ text }}"
"""
WHOLE = HEAD + SEED + SUMMARY


def expression(name: str, template: str, needs: str = "[]") -> str:
    return f"""
[[columns]]
generator = "expression"
name = "{name}"
template = "{template}"
needs = {needs}
"""


def structured(schema: str) -> str:
    return f"""
[[columns]]
generator = "llm_structured"
name = "triage"
model = "writer"
prompt = "{{{{ text }}}}"
schema = {schema}
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "seed.csv").write_text('id,text,extra\n1,"a\nb",x\n2,c,y\n3,d,z\n')
    return tmp_path


def load(folder: Path, text: str, *, name: str = "flow.toml", environ=None) -> Workflow:
    (folder / name).write_text(text, encoding="utf-8")
    return load_workflow(folder / name, environ=environ or {})


def refusal(folder: Path, text: str, *, name: str = "flow.toml", environ=None) -> str:
    with pytest.raises(WorkflowError) as caught:
        load(folder, text, name=name, environ=environ)
    message = str(caught.value)
    assert message.startswith(str(folder / name))
    assert message.endswith((".", "?"))
    prefix = re.compile(rf"{re.escape(str(folder / name))}(:\d+)?: ")
    assert all(prefix.match(line) for line in message.splitlines())
    return prefix.sub("", message)


# --- what a good file becomes


def test_the_example_is_accepted():
    workflow = load_workflow(REPO / "examples" / "support_triage" / "workflow.toml", environ={})
    assert [column.inputs for column in workflow.columns] == [
        (),
        ("customer", "channel", "message"),
        ("message", "summary"),
        ("triage",),
    ]
    assert workflow.seed.records == 240
    assert workflow.row_group_count == 6


def test_a_workflow_is_the_same_after_its_way_through_json(folder):
    text = WHOLE + structured('{type = "object", properties = {a = {type = "integer"}}}')
    workflow = load(folder, text)
    assert Workflow.model_validate_json(workflow.model_dump_json()) == workflow


def test_paths_are_absolute_seed_from_the_file_and_output_from_the_current_directory(
    folder, monkeypatch
):
    elsewhere = folder / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    workflow = load(folder, WHOLE)
    seed = workflow.columns[0].spec
    assert isinstance(seed, SeedColumn)
    assert seed.path == workflow.seed.path == str(folder / "seed.csv")
    assert workflow.output.path == str(elsewhere / "out.jsonl")


def test_an_output_below_a_current_directory_that_is_gone_is_refused_with_its_place(
    folder, monkeypatch
):
    gone = folder / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    assert refusal(folder, WHOLE) == (
        "output.path: out.jsonl cannot be reached: No such file or directory; name another file."
    )


def test_columns_know_inputs_and_makers_in_the_order_of_the_workflow(folder):
    column = expression("label", "{{ summary }} {{ text }}", needs='["id"]')
    workflow = load(folder, HEAD + column + SUMMARY + SEED)
    label, summary, seed = workflow.columns
    assert (label.inputs, label.depends_on) == (("summary", "id", "text"), (1, 2))
    assert (summary.inputs, summary.depends_on) == (("text",), (2,))
    assert (seed.inputs, seed.depends_on, seed.outputs) == ((), (), ("id", "text"))
    assert [column.task_type for column in workflow.columns] == [
        TaskType.CELL,
        TaskType.CELL,
        TaskType.FROM_SCRATCH,
    ]


def test_a_column_that_uses_nothing_waits_until_its_record_exists(folder):
    workflow = load(folder, HEAD + SEED + expression("label", "always"))
    assert workflow.columns[1].inputs == ("id",)
    assert workflow.columns[1].depends_on == (0,)


def test_a_skip_condition_is_a_column_of_its_own_that_others_share(folder):
    skipped = SUMMARY + "skip_when = \"id == '1'\"\n"
    other = skipped.replace("summary", "other").replace("id == '1'", "{{ id == '1' }}")
    workflow = load(folder, HEAD + SEED + skipped + other)
    _seed, summary, second, condition = workflow.columns
    assert summary.condition == second.condition == condition.outputs[0]
    assert summary.inputs == ("text", condition.outputs[0])
    assert (condition.inputs, condition.depends_on) == (("id",), (0,))
    assert workflow.output_names == ("id", "text", "summary", "other")


@pytest.mark.parametrize(
    ("condition", "words"),
    [
        ("idd == 1", ["columns[1].skip_when (column 'summary')", "did you mean 'id'"]),
        ("id ==", ["columns[1].skip_when (column 'summary')", "template line 1"]),
        ("summary", ["these wait for each other"]),
    ],
)
def test_a_skip_condition_is_checked_as_templates_are(folder, condition, words):
    message = refusal(folder, HEAD + SEED + SUMMARY + f'skip_when = "{condition}"\n')
    assert [word for word in words if word not in message] == [], message


def test_words_of_the_template_itself_are_no_inputs(folder):
    template = "{% for c in text %}{{ loop.index }}{% set k = c %}{{ k }}{% endfor %}{{ range(2) }}"
    assert load(folder, HEAD + SEED + expression("label", template)).columns[1].inputs == ("text",)


def test_a_file_with_a_byte_order_mark_and_windows_lines_is_read(folder):
    (folder / "flow.toml").write_bytes(b"\xef\xbb\xbf" + WHOLE.replace("\n", "\r\n").encode())
    assert load_workflow(folder / "flow.toml", environ={}).name == "letters"


def test_yaml_says_the_same_as_toml(folder):
    yaml = """
name: letters
output: {path: out.jsonl}
providers: {local: {base_url: http://127.0.0.1:8089/v1/}}
models: {writer: {provider: local, model: large, max_parallel_requests: 8}}
columns:
  - {generator: seed, names: [id, text], path: seed.csv}
  - {generator: llm_text, name: summary, model: writer, prompt: "Sum up: {{ text }}"}
"""
    from_yaml = load(folder, yaml, name="flow.yaml")
    assert from_yaml.model_copy(update={"file": str(folder / "flow.toml")}) == load(folder, WHOLE)


def test_yaml_without_pyyaml_names_the_remedy(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "yaml", None)
    with pytest.raises(ConfigurationError, match=r"run pip install '\.\[yaml\]' in "):
        load(folder, "name: x", name="flow.yml")


# --- the environment


def test_an_address_from_the_environment_replaces_the_written_one(folder):
    environ = {"FOREBAY_PROVIDER_LOCAL_BASE_URL": "https://provider:1/v2/"}
    assert load(folder, WHOLE).providers["local"].base_url == "http://127.0.0.1:8089/v1"
    assert load(folder, WHOLE, environ=environ).providers["local"].base_url == (
        "https://provider:1/v2"
    )
    assert apply_addresses(load(folder, WHOLE), environ=environ) == load(
        folder, WHOLE, environ=environ
    )


def test_a_provider_name_becomes_a_variable_in_capitals_with_underscores(folder):
    environ = {"FOREBAY_PROVIDER_MY_LAB_2_BASE_URL": "http://lab"}
    text = WHOLE.replace("providers.local", 'providers."my-lab.2"')
    workflow = load(folder, text.replace('"local"', '"my-lab.2"'), environ=environ)
    assert workflow.providers["my-lab.2"].base_url == "http://lab"


def test_a_wrong_address_in_the_environment_is_refused_by_the_variable_and_not_shown(folder):
    environ = {"FOREBAY_PROVIDER_LOCAL_BASE_URL": "http://me:hunter2@host"}
    with pytest.raises(WorkflowError, match="FOREBAY_PROVIDER_LOCAL_BASE_URL: expected http") as e:
        load(folder, WHOLE, environ=environ)
    assert "hunter2" not in str(e.value)


@pytest.mark.parametrize("environ", [{}, {"LAB_KEY": ""}])
def test_a_key_that_is_not_there_is_named(folder, environ):
    text = WHOLE.replace("[models.writer]", 'api_key_env = "LAB_KEY"\n[models.writer]')
    message = refusal(folder, text, environ=environ)
    assert "providers.local.api_key_env: the environment variable LAB_KEY is not set" in message


def test_no_key_value_is_in_the_workflow(folder):
    text = WHOLE.replace("[models.writer]", 'api_key_env = "LAB_KEY"\n[models.writer]')
    workflow = load(folder, text, environ={"LAB_KEY": "hunter2"})
    assert "hunter2" not in workflow.model_dump_json() + repr(workflow)
    assert workflow.providers["local"].api_key_env == "LAB_KEY"


# --- what is refused


def change(old: str, new: str) -> str:
    assert WHOLE.count(old) == 1
    return WHOLE.replace(old, new)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("name = \n", ["TOML syntax", "line 1, column 8"]),
        ("a = 1\na = 2\n", ["TOML syntax", "line 2"]),
        (f"a = {'1' * 5000}", ["TOML syntax"]),
        ("a = " + "[" * 9000 + "]" * 9000, ["nested too deep"]),
        ("", ["name: is missing; add it", "\noutput: is missing", "\ncolumns: is missing"]),
        (WHOLE.replace("max_parallel", "max_paralel"), ["max_paralel_requests: unknown key;"]),
        (change('prompt = "Sum', 'promt = "Sum'), ["columns[1].promt", "mean 'prompt'?"]),
        (change('name = "letters"', "nme = 1"), ["nme: unknown key; did you mean 'name'?"]),
        (change("base_url", "base_uri"), ["providers.local.base_uri", "mean 'base_url'?"]),
        (change('path = "out', 'pth = "out'), ["output.pth: unknown key; did you mean 'path'?"]),
        (HEAD + "[models.writer.tuning]\ncooldown = 1\n" + SEED, ["mean 'cooldown_seconds'?"]),
        (HEAD + "[models.writer.quotas]\nrpm = 1\n" + SEED, ["models.writer.quotas.rpm: unknown"]),
        (
            HEAD + "[models.writer.quotas.bursts]\nrequests_per_day = 1\n" + SEED,
            ["models.writer.quotas: bursts names requests_per_day, which has no limit"],
        ),
        (
            HEAD
            + "quotas = {requests_per_day = 1}\n"
            + '[models.judge]\nprovider = "local"\nmodel = "large"\nmax_parallel_requests = 1\n'
            + "quotas = {requests_per_day = 2}\n"
            + SEED,
            ["models.judge.quotas: models.writer gives other quotas to the same"],
        ),
        (
            HEAD
            + "initial_limit = 2\n"
            + '[models.judge]\nprovider = "local"\nmodel = "large"\nmax_parallel_requests = 1\n'
            + "initial_limit = 3\n"
            + SEED,
            ["models.judge.initial_limit: models.writer gives other initial_limit to the same"],
        ),
        (
            HEAD
            + "tuning = {round_successes = 12}\n"
            + '[models.judge]\nprovider = "local"\nmodel = "large"\nmax_parallel_requests = 1\n'
            + 'tuning = {rule = "aimd"}\n'
            + SEED,
            ["models.judge.tuning: models.writer gives other tuning to the same"],
        ),
        (change("= 8", '= "8"'), ["models.writer.max_parallel_requests: expected a valid integer"]),
        (change("= 8", "= true"), ["expected a valid integer, not true"]),
        (change("= 8", "= 0"), ["expected greater than or equal to 1, not 0"]),
        (change("= 8", "= 8\ntemperature = nan"), ["models.writer.temperature: the number"]),
        (change("= 8", "= 8\nmax_tokens = 1979-05-27"), ["max_tokens: expected text or a number"]),
        (change('name = "letters"', 'name = ""'), ["name: name must be a non-empty string"]),
        (change('name = "letters"', f'name = "{"x" * 600}"'), ["the most is 512"]),
        (change('["id", "text"]', '"id"'), ["columns[0].names: expected a valid array, not text"]),
        (change('["id", "text"]', "[]"), ["columns[0].names: is empty"]),
        (change('"llm_text"', '"llm_txt"'), ["columns[1].generator", "mean 'llm_text'?"]),
        (change('generator = "llm_text"', ""), ["columns[1].generator (column 'summary'): is mis"]),
        (change('provider = "local"', 'provider = "lokal"'), ["writer.provider", "'local'?"]),
        (
            change('model = "writer"', 'model = "x"'),
            ["columns[1].model", "unknown model alias 'x'"],
        ),
        (change("{{ text }}", "{{ txet }}"), ["columns[1].prompt", "'txet'; did you mean 'text'?"]),
        (change("{{ text }}", "{{ summary }}"), ["summary -> summary"]),
        (change("{{ text }}", "{{ text"), ["columns[1].prompt", "template line 1"]),
        (change("{{ text }}", "{{ text|nope }}"), ["columns[1].prompt", "No filter named 'nope'"]),
        (change("{{ text }}", "{% include 'x' %}"), ["no other template can be loaded"]),
        (change("{{ text }}", "{{ text|random }}"), ["No filter named 'random'"]),
        (WHOLE + SUMMARY, ["columns[2].name", "columns[1] makes a column 'summary' already"]),
        (change('"id", "text"', '"id", "id"'), ["columns[0].names[1]", "columns[0] makes"]),
        (WHOLE + expression("range", "x"), ["columns[2].name", "'range' as their own word"]),
        (WHOLE + expression("true", "x"), ["'true' as their own word"]),
        (WHOLE + expression("a", "x", '["nope"]'), ["columns[2].needs[0]", "no column makes"]),
        (
            HEAD + SEED + expression("a", "{{ b }}") + expression("b", "{{ a }}"),
            ["columns: these wait for each other: a -> b -> a"],
        ),
        (HEAD + expression("a", "x"), ["columns: nothing says how many records", "'seed'"]),
        (WHOLE + SEED.replace('"id", "text"', '"extra"'), ["columns[2].generator", "second seed"]),
        (WHOLE + structured('{type = "objekt"}'), ["columns[2].schema", "at $.type"]),
        (WHOLE + structured('{pattern = "["}'), ["columns[2].schema", "at $.pattern"]),
        (WHOLE + structured("{'$schema' = 3}"), ["columns[2].schema", "$.$schema"]),
        (
            WHOLE + structured("{items = {'$ref' = 'https://example.org/x.json'}}"),
            ["columns[2].schema", "leads nowhere"],
        ),
        (WHOLE + structured('"x"'), ["columns[2].schema", "expected an object, not text"]),
        (change('"seed.csv"', '"nope.csv"'), ["columns[0].path: there is no file", "nope.csv"]),
        (change('"seed.csv"', '"."'), ["columns[0].path", "unknown kind"]),
        (change('"id", "text"', '"text", "xtra"'), ["columns[0].path", "line 1", "mean 'extra'?"]),
        (change('"out.jsonl"', '"."'), ["output.path", "is a folder"]),
        (change('"out.jsonl"', '"seed.csv"'), ["output.path", "is the seed file"]),
        (change('"out.jsonl"', '""'), ["output.path: is empty"]),
    ],
)
def test_a_wrong_file_is_refused_with_the_place_and_what_was_expected(folder, text, words):
    message = refusal(folder, text)
    for word in words:
        assert word in message


# --- names and paths that a run could not use


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("a/b", "'a/b' holds '/'"),
        ("../../etc", "holds '/'"),
        ("a\\\\b", "holds '\\\\'"),
        ("a:b", "holds ':'"),
        ("a*", "holds '*'"),
        ("a\\u0000b", "holds '\\x00'"),
        ("a\\nb", "holds '\\n'"),
        ("a\\tb", "holds '\\t'"),
        ("a\\u001b[2J", "holds '\\x1b'"),
        ("a\\u202eb", "holds '\\u202e'"),
        ("..", "begins with '.'"),
        (".hidden", "begins with '.'"),
        ("-rf", "begins with '-'"),
        (" a", "begins with ' '"),
        ("a ", "ends with ' '"),
        ("a.", "ends with '.'"),
        ("x" * 101, "is 101 bytes long"),
        ("é" * 51, "is 102 bytes long"),
    ],
)
def test_a_name_that_no_file_can_have_is_refused(folder, name, problem):
    message = refusal(folder, change('"letters"', f'"{name}"'))
    assert message.startswith("name: '")
    assert problem in message
    assert "expected what can be part of a file name: at most 100 bytes" in message
    assert message.endswith("; rename it.")


@pytest.mark.parametrize("name", ["x" * 100, "Über 2", "日本語", "a.b_c-d", "CON"])
def test_a_name_that_a_file_can_have_is_taken(folder, name):
    assert load(folder, change('"letters"', f'"{name}"')).name == name


@pytest.mark.parametrize(
    ("output", "made", "problem"),
    [
        ("out/", "", "is a folder; name a file in it"),
        ("o.jsonl", "folder o.dropped.jsonl", "o.dropped.jsonl, where dropped records go, is a f"),
        ("o.jsonl", "folder o.jsonl.partial", "records first, is a folder; name another file"),
        ("pipe", "pipe pipe", "pipe is no ordinary file; name another file"),
        ("flow.toml", "", "flow.toml is the workflow file; name another file"),
        ("./sub/../flow.toml", "folder sub", "flow.toml is the workflow file"),
        ("link", "link link flow.toml", "link is the workflow file"),
        ("seed.jsonl", "link seed.dropped.jsonl seed.csv", "dropped records go, is the seed file"),
        ("file/out.jsonl", "file file", "file is no folder, so that nothing can lie below it"),
        ("loop/out.jsonl", "link loop loop", "loop is no folder"),
        ("o" * 240, "", "would have 262 bytes, the most is 255; shorten it, or the name"),
        ("o" * 300, "", "would have 300 bytes"),
        ("d/" * 2500 + "o", "", "cannot be reached: File name too long"),
    ],
)
def test_an_output_that_a_run_could_not_write_is_refused(folder, output, made, problem):
    match made.split():
        case ["folder", name]:
            (folder / name).mkdir()
        case ["file", name]:
            (folder / name).write_text("")
        case ["pipe", name]:
            os.mkfifo(folder / name)
        case ["link", name, target]:
            (folder / name).symlink_to(folder / target)
    message = refusal(folder, change('"out.jsonl"', f'"{output}"'))
    assert message.startswith("output.path: ")
    assert problem in message


def test_an_output_folder_that_this_user_may_not_write_is_refused(folder, monkeypatch):
    monkeypatch.setattr(os, "access", lambda *_: False)  # root may write everywhere
    message = refusal(folder, WHOLE)
    assert message.startswith(f"output.path: this user may not write in the folder {folder}")


@pytest.mark.parametrize("where", ["workflow", "output"])
def test_a_path_that_workers_cannot_be_told_is_refused(folder, monkeypatch, where):
    odd = Path(os.fsdecode(os.fsencode(folder) + b"/\xff"))
    odd.mkdir()
    if where == "workflow":
        for name in ("seed.csv",):
            (odd / name).write_bytes((folder / name).read_bytes())
        with pytest.raises(WorkflowError, match="is not UTF-8; use folders and files whose names"):
            load(odd, WHOLE)
    else:
        monkeypatch.chdir(odd)
        assert "output.path: the path" in refusal(folder, WHOLE)


@pytest.mark.parametrize(
    "prompt",
    [
        "{{ " + "(" * 3000 + "text" + ")" * 3000 + " }}",
        "{% if text %}" * 500 + "{% endif %}" * 500,
        "{% for a in text %}" * 25 + "{% endfor %}" * 25,
        "{{ " + "9" * 5000 + " }}",
    ],
    ids=["brackets", "conditions", "loops", "long number"],
)
def test_a_template_that_python_cannot_compile_is_refused_by_its_place(folder, prompt):
    message = refusal(folder, change("Sum up: {{ text }}", prompt))
    assert message.startswith("columns[1].prompt (column 'summary'): template line 1: ")


def test_a_long_name_of_a_column_is_cut_short_where_it_is_told(folder):
    message = refusal(folder, WHOLE + expression("c" * 600, "x"))
    assert "columns[2].name" in message
    assert "the most is 512" in message
    assert len(message) < 300


def test_all_mistakes_are_told_at_once_by_file_line_and_key(folder):
    """Of form and of meaning, those of a part that has the right form beside one that has not."""
    text = (
        change('prompt = "Sum', 'promt = "Sum').replace("= 8", '= "8"')
        + expression("label", "{{ txet }}", '["sumary"]')
        + '[[columns]]\ngenerator = "expression"\nname = "more"\n'
        + "template = '''\n{{ id }}\n{{ labell }} {{ nothing }}\n'''\n"
    ).replace("[models.writer]", 'api_key_env = "NO_KEY"\n[models.writer]')
    with pytest.raises(WorkflowError) as caught:
        load(folder, text)
    known = "use one of id, text, summary, label, more."
    assert [line.removeprefix(f"{folder / 'flow.toml'}:") for line in caught.value.sentences] == [
        (
            "7: providers.local.api_key_env: the environment variable NO_KEY is not set here; set"
            " it to the provider's key, or take this line out if it needs none."
        ),
        (
            "11: models.writer.max_parallel_requests: expected a valid integer, not text; write a"
            " whole number without quotes."
        ),
        "22: columns[1].promt (column 'summary'): unknown key; did you mean 'prompt'?",
        "27: columns[2].template (column 'label'): no column makes 'txet'; did you mean 'text'?",
        (
            "28: columns[2].needs[0] (column 'label'): no column makes 'sumary';"
            " did you mean 'summary'?"
        ),
        (
            "34: columns[3].template (column 'more'): template line 2: no column makes 'labell';"
            " did you mean 'label'?"
        ),
        (
            f"34: columns[3].template (column 'more'): template line 2: no column makes 'nothing';"
            f" {known}"
        ),
    ]


def test_mistakes_in_yaml_have_their_lines(folder):
    text = """
name: letters
output: {path: out.jsonl}
columns:
  - {generator: seed, names: [id, text], path: seed.csv}
  - generator: expression
    name: label
    template: |
      {{ id }}

      {{ txet }}
  - generator: expresion
    name: other
"""
    with pytest.raises(WorkflowError) as caught:
        load(folder, text, name="flow.yaml")
    assert [line.removeprefix(f"{folder / 'flow.yaml'}:") for line in caught.value.sentences] == [
        (
            "11: columns[1].template (column 'label'): template line 3: no column makes 'txet';"
            " did you mean 'text'?"
        ),
        (
            "12: columns[2].generator (column 'other'): unknown generator 'expresion'; did you mean"
            " 'expression'?"
        ),
    ]


@pytest.mark.parametrize(
    "url",
    ["host:80", "ftp://host", "http://", "http://u:hunter2@h", "http://h:x", "http://h?k=hunter2"],
)
def test_an_address_that_cannot_be_called_is_refused_and_not_shown(folder, url):
    message = refusal(folder, change("http://127.0.0.1:8089/v1/", url))
    assert message.startswith("providers.local.base_url: expected http(s)://host[:port][/path]")
    assert "hunter2" not in message


@pytest.mark.parametrize("line", ['api_key = "sk-hunter2"', 'api_key_env = "sk-hunter2"'])
def test_a_key_written_into_the_file_is_refused_and_shown_nowhere(folder, line):
    with pytest.raises(WorkflowError) as caught:
        load(folder, change("[models.writer]", f"{line}\n[models.writer]"))
    assert "api_key_env" in str(caught.value)
    assert "hunter2" not in str(caught.value)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("name: [", ["YAML syntax", "line 1"]),
        ("- 1", ["expected keys and values"]),
        ("", ["expected keys and values"]),
        ("name: a\nname: b", ["the key 'name' stands twice", "line 2, column 1"]),
        ("name: 2024-01-01", ["name: expected text or a number, not a date"]),
        ("on: 1", ["the key is not text"]),
        ("name: &a [*a]", ["nested too deep"]),
        ("name: !!python/name:os.system x", ["YAML syntax"]),
    ],
)
def test_wrong_yaml_is_refused_with_the_place(folder, text, words):
    message = refusal(folder, text, name="flow.yaml")
    for word in words:
        assert word in message


def test_a_file_that_cannot_be_read_is_refused(folder):
    with pytest.raises(WorkflowError, match="cannot be read: No such file"):
        load_workflow(folder / "nope.toml", environ={})
    (folder / "latin.toml").write_bytes('name = "é"'.encode("latin-1"))
    with pytest.raises(WorkflowError, match="not UTF-8; save the file as UTF-8"):
        load_workflow(folder / "latin.toml", environ={})


# --- small promises of the contract


def test_row_groups_cover_all_records_once(folder):
    workflow = load(folder, "buffer_size = 2\n" + WHOLE)
    groups = [workflow.row_group(index) for index in range(workflow.row_group_count)]
    assert [(group.start, group.count) for group in groups] == [(0, 2), (2, 1)]
    with pytest.raises(IndexError):
        workflow.row_group(2)


def test_the_smallest_cap_of_all_aliases_of_an_endpoint_counts(folder):
    more = HEAD + "[models.judge]\nprovider='local'\nmodel='large'\nmax_parallel_requests=5\n"
    other = more + "[models.small]\nprovider='local'\nmodel='small'\nmax_parallel_requests=2\n"
    workflow = load(folder, other + SEED + SUMMARY)
    assert {alias: workflow.static_cap(alias) for alias in workflow.models} == {
        "writer": 5,
        "judge": 5,
        "small": 2,
    }


def test_a_schema_stays_a_schema_in_json(folder):
    workflow = load(folder, WHOLE + structured('{type = "object"}'))
    column = json.loads(workflow.model_dump_json())["columns"][2]["spec"]
    assert column["schema"] == {"type": "object"}


def test_needs_alone_make_an_input(folder):
    workflow = load(folder, WHOLE + expression("label", "done", '["summary"]'))
    assert isinstance(workflow.columns[2].spec, ExpressionColumn)
    assert workflow.columns[2].inputs == ("summary",)
