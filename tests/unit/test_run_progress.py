"""What `forebay run` and `forebay attach` say of a run while it goes."""

from __future__ import annotations

from typing import Any

import pytest

from forebay.commands import run_scene
from forebay.commands.progress import PlainView
from forebay.commands.run_scene import duration, limits_now
from tests.support_run_scenes import scene_of, window

COOLING = window(in_flight_count=0, cooldown_remaining_seconds=4.0)
BUSY = window(waiting=("atlas", "atlas"), in_flight_count=24)
IDLE = window(in_flight_count=0)


def test_lines_tell_records_rate_and_what_limits_once_for_each_change(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = [0.0]
    monkeypatch.setattr(run_scene.time, "monotonic", lambda: now[0])
    lines: list[str] = []
    view = PlainView(scene_of().look.spec, lines.append)
    for at, scene in (
        (1.0, scene_of(50)),
        (11.0, scene_of(60, 12, retried=3)),
        (12.0, scene_of(64, 12, windows=(BUSY,))),
    ):
        now[0] = at
        view.show(scene)
    assert lines == [
        "      1 s  50/100 records  0.0/s  time left not known",
        "    limited by provider: 3 calls of local/mock-large under way",
        "     11 s  72/100 records  2.2/s  13 s left  12 dropped  3 retried",
        "     12 s  76/100 records  2.4/s  10 s left  12 dropped",
        "    limited by request wait: 24/24 of local/mock-large in use, 2 calls wait",
    ]
    assert all(len(line) <= 80 for line in lines)


@pytest.mark.parametrize(
    ("scene", "said"),
    [
        ({"problem": "every call failed"}, "stopped: every call failed"),
        ({"workers": 0}, "no worker: the pool has none that makes cells"),
        ({"state": "paused"}, "paused pool: forebay open lets it go on"),
        ({"windows": (COOLING,)}, "cooldown: local/mock-large takes no call, 4 s more"),
        (
            {"windows": (window(cooldown_remaining_seconds=9.0, blocked_for="tokens_per_day"),)},
            "quota: tokens_per_day of local/mock-large used up, 9 s more",
        ),
        (
            {"windows": (COOLING, window())},
            "provider: 3 calls of local/mock-large1 under way",
        ),
        (
            {"windows": (window(in_flight_count=1),)},
            "provider: 1 call of local/mock-large under way",
        ),
        (
            {"windows": (window(waiting=("atlas", "borealis"), in_flight_count=24),)},
            "fairness: 24/24 of local/mock-large in use, 1 other tenant waits for it too",
        ),
        (
            {"windows": (window(waiting=("atlas",), in_flight_count=5),)},
            "quota: 1 call waits for the budget of local/mock-large",
        ),
        ({"queued": 1}, "slots: 1 task waits for a free slot of 2 workers"),
        ({"queued": 7}, "slots: 7 tasks wait for a free slot of 2 workers"),
        ({"windows": (IDLE,), "unwritten": 1}, "driver: 1 finished row group waits to be written"),
        ({"windows": (IDLE,), "unwritten": 2}, "driver: 2 finished row groups wait to be written"),
        ({"windows": (IDLE,)}, "dependencies: no cell is ready before another is made"),
    ],
)
def test_what_limits_a_run_is_said_in_words(scene: dict[str, Any], said: str) -> None:
    assert str(limits_now(scene_of(1, **scene))) == said


def test_a_share_of_the_pool_is_called_fairness(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = scene_of(1, queued=3)
    blocked = scene.pool.blocked
    reasons = {run_scene.TaskDenialReason.GROUP_CAP: 1}
    monkeypatch.setattr(type(blocked), "reasons", reasons, raising=False)
    assert str(limits_now(scene)) == "fairness: group cap, 3 tasks wait for others"


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.4, "0 s"), (119.0, "119 s"), (150.0, "2 min"), (7300.0, "2 h 2 min")],
)
def test_lengths_of_time_are_said_as_people_say_them(seconds: float, words: str) -> None:
    assert duration(seconds) == words
