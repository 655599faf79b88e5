"""The workflows of the run scenarios, over two providers of one machine.

Rules: design 08, *Scenarios* 6.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

MODULE: Final = "bench_calls"
MODEL: Final = "mock"
COOLDOWN_SECONDS: Final = 0.3
"""Wait that provider a's refusals name in scenario ``cooling``, until b has answered all calls."""
_MODULE: Final = '''
async def ask(record, models):
    """Make 0, 1 or many calls, as the record says."""
    answers = []
    for number in range(int(record["id"]) % 4):
        messages = [{"role": "user", "content": f"{record['id']}: question {number}"}]
        answers.append(str(await models.chat("a", messages)))
    return answers
'''
_HEAD: Final = """
name = "{name}"
buffer_size = 10
max_concurrent_row_groups = {row_groups}
output.path = "{output}"
providers.a{number}.base_url = "{a}"
providers.b{number}.base_url = "{b}"
[models.a]
provider = "a{number}"
model = "{model}"
max_parallel_requests = {cap_a}
initial_limit = {cap_a}
[models.b]
provider = "b{number}"
model = "{model}"
max_parallel_requests = {cap_b}
initial_limit = {cap_b}
[[columns]]
generator = "seed"
names = ["id"]
path = "seed.csv"
"""


def _text(name: str, model: str, *needs: str) -> str:
    values = " ".join(f"{{{{ {need} }}}}" for need in ("id", *needs))
    return (
        f"[[columns]]\ngenerator = 'llm_text'\nname = '{name}'\nmodel = '{model}'\n"
        f"prompt = 'Say {name} of {values}'\n"
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """One scenario.

    Attributes:
        name: of the scenario.
        columns: those behind the seed, as TOML.
        caps: of the models a and b, which their windows begin with.
        row_groups: that are open at once.
        is_neutral: whether the policy must not matter.
        downstream: the column whose first cell is measured; "" for none.
        truths: what the providers a and b are like, where it is not as usual.
        calls: of each record, by its number.
    """

    name: str
    columns: str
    caps: tuple[int, int] = (8, 8)
    row_groups: int = 4
    is_neutral: bool = True
    downstream: str = ""
    truths: Mapping[str, Mapping[str, object]] | None = None
    calls: Callable[[int], int] = lambda _record: 2

    def write(self, folder: Path, records: int, number: int, addresses: Mapping[str, str]) -> Path:
        """Write workflow, seed and module; return the workflow's file.

        Args:
            folder: made here.
            records: how many.
            number: of the run, which no other one has: its providers' windows are new.
            addresses: of the providers a and b.
        """
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "seed.csv").write_text("id\n" + "".join(f"{n}\n" for n in range(records)))
        (folder / f"{MODULE}.py").write_text(_MODULE)
        head = _HEAD.format(
            name=self.name,
            output=folder / "out.jsonl",
            model=MODEL,
            number=number,
            row_groups=self.row_groups,
            cap_a=self.caps[0],
            cap_b=self.caps[1],
            **addresses,
        )
        path = folder / "flow.toml"
        path.write_text(head + self.columns)
        return path


_DYNAMIC: Final = (
    "[[columns]]\ngenerator = 'python'\nname = 'asked'\nneeds = ['id']\nmodels = ['a']\n"
    f"function = '{MODULE}:ask'\n"
)
SCENES: Final = (
    Scene(
        name="narrow_serial",
        columns=_text("first", "a") + _text("second", "a", "first"),
        caps=(1, 1),
        row_groups=1,
    ),
    Scene(
        name="wide_roots",
        columns="".join(_text(f"root{n}", "a") for n in range(4)),
        calls=lambda _record: 4,
    ),
    Scene(
        name="judged",
        columns=_text("answer", "a") + _text("verdict", "b", "answer"),
        caps=(8, 3),
    ),
    Scene(
        name="heavy_root",
        columns=_text("heavy", "a") + _text("fast", "b", "heavy"),
        caps=(4, 8),
        is_neutral=False,
        downstream="fast",
        truths={"a": {"latency_median_seconds": 0.15}, "b": {"latency_median_seconds": 0.01}},
    ),
    Scene(name="dynamic", columns=_DYNAMIC, calls=lambda record: record % 4),
    Scene(
        name="cooling",
        columns=_text("cooled", "a") + _text("other", "b"),
        is_neutral=False,
        truths={"a": {"concurrency": 0, "retry_after_seconds": COOLDOWN_SECONDS}},
    ),
)
