"""Draws docs/pictures from the code: the house of its imports, and the way of a call.

``python -m docs.site.pictures`` writes them, for the way with a server of its own;
``tests/contract/test_pictures.py`` compares them.
"""

from __future__ import annotations

import ast
import asyncio
import sys
from collections import Counter
from collections.abc import Iterable, Mapping
from html import escape
from pathlib import Path
from types import FrameType
from typing import Any, Self

import forebay
from forebay.coordinator.server.embedded import EmbeddedServer

REPO = Path(__file__).resolve().parents[2]
PICTURES = REPO / "docs" / "pictures"
BANDS = ("forebay", "workers", "coordinator", "contracts")
GROUND = {"coordinator/keys.py", "coordinator/logs.py", "coordinator/supervision.py"}
MODEL = forebay.ProviderModelKey(provider_name="openai", model_id="gpt")
WIDTH = 980
LINE = 46

Graph = dict[str, set[str]]


def imports_of(band: str) -> Graph:
    """Return what each package and module of a top folder imports of its siblings."""
    graph: Graph = {}
    for path in sorted((REPO / band).rglob("*.py")):
        if path.is_relative_to(REPO / "forebay") and path.is_symlink():
            continue
        own = path.relative_to(REPO / band).parts[0].removesuffix(".py")
        if own in {"__init__", "__main__"} or (REPO / band / own).is_symlink():
            continue
        seen = graph.setdefault(own, set())
        prefix = ["forebay"] if band == "forebay" else ["forebay", band]
        for name in _modules_named_in(path):
            parts = name.split(".")
            if parts[: len(prefix)] == prefix and len(parts) > len(prefix):
                seen.add(parts[len(prefix)])
    return {own: (seen & graph.keys()) - {own} for own, seen in graph.items()}


def _modules_named_in(path: Path) -> Iterable[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def levels_of(graph: Graph) -> dict[str, int]:
    """Return how many siblings stand below each one, at most; none imports in a circle."""
    levels: dict[str, int] = {}

    def level(name: str) -> int:
        if name not in levels:
            levels[name] = max((level(other) + 1 for other in graph[name]), default=0)
        return levels[name]

    for name in graph:
        level(name)
    return levels


def reduced(graph: Graph) -> Graph:
    """Return the imports that no chain of other imports implies."""

    def below(name: str) -> set[str]:
        return graph[name].union(*(below(other) for other in graph[name]))

    return {
        name: others - set().union(*(below(other) for other in others))
        for name, others in graph.items()
    }


class Drawing:
    """An SVG that grows downwards."""

    def __init__(self) -> None:
        self.height = 10
        self._lines: list[str] = []
        self._parts: list[str] = []

    def box(self, x: float, y: float, width: float, height: float, fill: str) -> None:
        """A box with rounded corners."""
        self._parts.append(
            f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="5"'
            f' fill="{fill}" stroke="#57606a"/>'
        )

    def text(self, x: float, y: float, words: str, kind: str = "") -> None:
        """A line of words."""
        name = f' class="{kind}"' if kind else ""
        self._parts.append(f'<text x="{x:g}" y="{y:g}"{name}>{escape(words)}</text>')

    def arrow(self, start: tuple[float, float], end: tuple[float, float]) -> None:
        """A line with a head, below the boxes."""
        self._lines.append(
            f'<line x1="{start[0]:g}" y1="{start[1]:g}" x2="{end[0]:g}" y2="{end[1]:g}"'
            ' stroke="#8c959f" marker-end="url(#head)"/>'
        )

    def svg(self, title: str) -> str:
        """Return all of it."""
        style = (
            "text{font:13px sans-serif;fill:#1f2328;text-anchor:middle}"
            ".band{font-weight:bold;font-size:15px;text-anchor:start}"
        )
        head = (
            '<defs><marker id="head" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="8"'
            ' markerHeight="8" orient="auto"><path d="M0 0L8 4L0 8z" fill="#8c959f"/>'
            "</marker></defs>"
        )
        root = (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {self.height}"'
            f' role="img"><title>{escape(title)}</title><style>{style}</style>{head}'
        )
        return "\n".join(
            [
                root,
                f'<rect width="{WIDTH}" height="{self.height}" fill="#ffffff"/>',
                *(part for part in self._parts if 'rx="5"' in part and "#f6f8fa" in part),
                *self._lines,
                *(part for part in self._parts if not ('rx="5"' in part and "#f6f8fa" in part)),
                "</svg>\n",
            ]
        )


def house() -> str:
    """Return the picture of the folders: who imports whom, the imported below the importer."""
    drawing = Drawing()
    for band in BANDS:
        _draw_band(drawing, band)
    return drawing.svg("Folders and imports: what is above imports what is below")


def _draw_band(drawing: Drawing, band: str) -> None:
    graph = imports_of(band)
    levels = levels_of(graph)
    if band == "contracts":  # values, which import one another freely
        levels = dict.fromkeys(graph, 0)
        graph = {name: set() for name in graph}
    rows: list[list[str]] = []
    for height in range(max(levels.values()), -1, -1):
        names = sorted(name for name in graph if levels[name] == height)
        rows += [names[at : at + 6] for at in range(0, len(names), 6)]
    top = drawing.height
    drawing.box(10, top, WIDTH - 20, len(rows) * LINE + 30, "#f6f8fa")
    note = "; its scripts/ alone reads lua/" if band == "coordinator" else ""
    drawing.text(20, top + 20, f"{band}/{note}", "band")
    places: dict[str, tuple[float, float]] = {}
    for row, names in enumerate(rows):
        step = (WIDTH - 40) / len(names)
        for column, name in enumerate(names):
            x, y = 20 + step * (column + 0.5), top + 30 + row * LINE
            places[name] = x, y
            is_package = (REPO / band / name).is_dir()
            width = min(step - 8, 8 * len(name) + 24)
            drawing.box(x - width / 2, y, width, 26, "#ddf4ff" if is_package else "#ffffff")
            drawing.text(x, y + 17, name + ("/" if is_package else ""))
    for name, others in reduced(graph).items():
        for other in sorted(others):
            (x, y), (x2, y2) = places[name], places[other]
            drawing.arrow((x, y + 26), (x2, y2 - 1))
    drawing.height = top + len(rows) * LINE + 38


class Walk:
    """Notes the files of the project in which functions are called, on this thread, in order."""

    def __init__(self) -> None:
        self.files: list[str] = []

    def __enter__(self) -> Self:
        sys.setprofile(self._note)
        return self

    def __exit__(self, *_: object) -> None:
        sys.setprofile(None)

    def _note(self, frame: FrameType, event: str, _argument: Any) -> None:
        path = Path(frame.f_code.co_filename).resolve()
        if event == "call" and path.is_relative_to(REPO / "coordinator"):
            self.files.append(path.relative_to(REPO).as_posix())


async def walk_of_a_call(url: str) -> tuple[list[str], list[str]]:
    """Return the files that a granted acquire passes to the server, and back, in order."""
    walks = []
    async with forebay.connect(url) as requests:
        await requests.register(MODEL, "main", 2)
        for _ in range(5):  # a heartbeat or an upkeep may fall into one, and is in no other
            item = forebay.RequestAdmissionItem(
                resource=forebay.RequestResourceKey(provider_model=MODEL)
            )
            with Walk() as walk:
                lease = await requests.acquire(item)
            await requests.release(lease, forebay.SUCCESS)
            walks.append(walk.files)
    common = set.intersection(*map(set, walks)) - GROUND
    ways = [_there_and_back([name for name in walk if name in common]) for walk in walks]
    there, back = Counter(ways).most_common(1)[0][0]
    return list(there), list(back)


def _there_and_back(seen: list[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    sent = seen.index("coordinator/server/wire.py") + 1
    back = next(at for at in range(sent, len(seen)) if seen[at].endswith("wire.py"))
    return tuple(dict.fromkeys(seen[:sent])), tuple(dict.fromkeys(seen[back:]))


def way(there: list[str], back: list[str], meanings: Mapping[str, str]) -> str:
    """Return the picture of a call: its files to the script, and from the script to its caller."""
    drawing = Drawing()
    half = WIDTH / 2
    steps = [(0, there), (half, back[::-1])]
    rows = max(len(there), len(back))
    drawing.text(half / 2, 30, "requests.acquire(item)")
    drawing.text(half * 1.5, 30, "the lease, or why not")
    for x, names in steps:
        for row, name in enumerate(names):
            y = 55 + (rows - len(names) + row) * LINE
            drawing.box(x + 60, y, half - 120, 30, "#ddf4ff")
            drawing.text(x + half / 2, y + 19, name)
            above = (x + half / 2, y - LINE + 31 if row else 38)
            ends = (above, (x + half / 2, y - 1))
            drawing.arrow(*(ends if x == 0 else ends[::-1]))
    y = 55 + rows * LINE + 10
    drawing.arrow((half / 2, y - 26), (half / 2, y - 1))
    drawing.arrow((half * 1.5, y - 1), (half * 1.5, y - 26))
    drawing.box(60, y, WIDTH - 120, 50, "#fff8c5")
    drawing.text(half, y + 20, "in the server, one atomic call: lua/requests/batch.lua")
    drawing.text(half, y + 40, meanings["lua/requests/batch.lua"])
    drawing.height = int(y + 65)
    return drawing.svg("The way of an acquire that is granted at once")


def purpose_of(script: str) -> str:
    """Return the first sentence of an entry point's header."""
    first = (REPO / script).read_text(encoding="utf-8").split("\n", 1)[0]
    return first.lstrip("- ").rstrip(".")


async def pictures(url: str) -> dict[str, str]:
    """Return the pictures by the names of their files."""
    there, back = await walk_of_a_call(url)
    script = "lua/requests/batch.lua"
    return {"house.svg": house(), "call.svg": way(there, back, {script: purpose_of(script)})}


async def main() -> None:
    """Write the pictures."""
    server = EmbeddedServer()
    try:
        drawn = await pictures(server.start())
    finally:
        server.stop()
    PICTURES.mkdir(exist_ok=True)
    for name, text in drawn.items():
        (PICTURES / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    asyncio.run(main())
