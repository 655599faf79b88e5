"""`import forebay`: each public name is there, and imported when it is first used."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import forebay
from tests.support_extras import answer_of

HEAVY = ("arq", "asyncio", "httpx2", "jinja2", "matplotlib", "pydantic", "redis", "starlette")
LOADED = """
import json, sys
names = sys.argv[1:]
import forebay
for name in names:
    getattr(forebay, name)
print(json.dumps(sorted(sys.modules)))
"""


def loaded_by(*names: str) -> set[str]:
    """Import forebay in a new process, use some of its names, return what was imported."""
    return set(answer_of(LOADED, *names))


def exports_under_type_checking() -> dict[str, list[str]]:
    """Return module -> names of the imports that type checkers and editors read."""
    body = ast.parse(Path(forebay.__file__).read_text()).body
    blocks = [node for node in body if isinstance(node, ast.If)]
    [block] = [node for node in blocks if ast.unparse(node.test) == "TYPE_CHECKING"]
    found = {}
    for node in block.body:
        assert isinstance(node, ast.ImportFrom)
        assert all(alias.asname is None for alias in node.names)
        found[node.module] = sorted(alias.name for alias in node.names)
    return found


def test_importing_forebay_imports_nothing_but_forebay() -> None:
    loaded = loaded_by()
    assert {name for name in loaded if name.partition(".")[0] == "forebay"} == {"forebay"}
    assert loaded.isdisjoint(HEAVY)


@pytest.mark.parametrize("name", ["ForebayError", "TaskFailed", "__version__"])
def test_an_error_is_caught_without_importing_what_raises_it(name: str) -> None:
    assert loaded_by(name).isdisjoint(HEAVY)


def test_request_admission_imports_neither_arq_nor_an_extra() -> None:
    loaded = loaded_by("connect", "RequestAdmissionItem", "MemberSettings")
    assert {"redis", "pydantic"} < loaded
    assert loaded.isdisjoint(
        {"arq", "httpx2", "jinja2", "jsonschema_rs", "matplotlib", "starlette"}
    )


def test_every_public_name_resolves_where_no_extra_is_installed() -> None:
    program = (
        "import json, forebay\n"
        "print(json.dumps({name: getattr(forebay, name) is not None for name in forebay.__all__}))"
    )
    assert answer_of(program, extras=False) == dict.fromkeys(forebay.__all__, True)


def test_a_star_import_brings_the_public_names_and_no_others() -> None:
    brought: dict[str, object] = {}
    exec("from forebay import *", brought)
    assert brought.keys() - {"__builtins__"} == set(forebay.__all__)


def test_dir_names_what_is_not_imported_yet() -> None:
    program = "import json, forebay\nprint(json.dumps(dir(forebay)))"
    assert set(forebay.__all__) - set(answer_of(program)) == set()


@pytest.mark.parametrize("name", ["Connexion", "contract", "_private", "__wrapped__"])
def test_an_unknown_name_is_an_attribute_error(name: str) -> None:
    with pytest.raises(AttributeError, match=f"module 'forebay' has no attribute '{name}'"):
        getattr(forebay, name)
    assert not hasattr(forebay, name)
    with pytest.raises(ImportError, match=f"cannot import name '{name}'"):
        exec(f"from forebay import {name}", {})


def test_a_name_is_the_same_object_as_at_its_home() -> None:
    for module, names in forebay._EXPORTS.items():
        home = __import__(module, fromlist=list(names))
        for name in names:
            assert getattr(forebay, name) is getattr(home, name)


def test_what_is_exported_is_what_is_public_and_what_type_checkers_see() -> None:
    exported = {module: sorted(names) for module, names in forebay._EXPORTS.items()}
    assert exported == exports_under_type_checking()
    names = [name for names in exported.values() for name in names]
    assert sorted([*names, "__version__"]) == sorted(forebay.__all__)
    assert len(set(names)) == len(names)
