"""The pictures of docs/pictures are those that the code draws."""

from __future__ import annotations

from docs.site.pictures import PICTURES, levels_of, pictures, reduced

REMEDY = "write them anew: python -m docs.site.pictures"


async def test_the_pictures_are_those_of_the_code(redis_url: str) -> None:
    drawn = await pictures(redis_url)
    there = {path.name: path.read_text(encoding="utf-8") for path in PICTURES.glob("*.svg")}
    assert there.keys() == drawn.keys()
    assert not [name for name in drawn if drawn[name] != there[name]], REMEDY


def test_an_import_that_a_chain_implies_is_not_drawn() -> None:
    graph = {"a": {"b", "c"}, "b": {"c"}, "c": set[str]()}
    assert reduced(graph) == {"a": {"b"}, "b": {"c"}, "c": set()}
    assert levels_of(graph) == {"a": 2, "b": 1, "c": 0}
