"""The live view and the report of a run: what they tell, and that they fit (design 05)."""

from __future__ import annotations

import io
import re
from pathlib import Path

import click
import pytest
from rich.console import Console

from forebay.commands.driving import EXIT_NOT_ALL, conclude
from forebay.commands.kept import print_kept
from forebay.commands.report_options import report_path, write_report
from forebay.commands.run_live import LiveView, picture_of
from forebay.commands.run_report import RunHistory
from forebay.commands.run_scene import Pace, RunScene
from forebay.contracts.errors import ConfigurationError
from forebay.workers.runs.driver import RunSummary
from forebay.workers.runs.files import RunFiles
from tests.support_run_scenes import scene_of, window

BUSY = window(waiting=("atlas", "atlas"), in_flight_count=24)


def drawn(scene: RunScene, width: int, **options: bool) -> str:
    stream = io.StringIO()
    console = Console(file=stream, width=width, force_terminal=True, **options)
    pace = Pace(100)
    pace.note(0)
    console.print(picture_of(scene, pace))
    return stream.getvalue()


@pytest.mark.parametrize("width", [80, 120])
def test_the_live_view_tells_counts_columns_models_and_the_limit_within_the_terminal(
    width: int,
) -> None:
    lines = drawn(scene_of(60, 12, retried=3, windows=(BUSY,)), width, no_color=True).splitlines()
    plain = [re.sub(r"\x1b\[\d*m", "", line) for line in lines]
    assert all(len(line) <= width for line in plain)
    text = "\n".join(" ".join(line.split()) for line in plain)
    for told in (
        "letters-1 tenant atlas 2 workers",
        "72/100 72% 0.0/s time left not known",
        "done 60 dropped 12 retried 3 row groups 1 open, 0 unwritten cost 0.0020 USD",
        "column made calls 429s retried waited",
        "summary 60/100 62 2 3 0",
        "model window in flight waiting 429s tokens in, out cooldown",
        "local/mock-large 24/32 24 2 2 1,000, 500 -",
        "limited by request wait: 24/24 of local/mock-large in use, 2 calls wait",
    ):
        assert told in text, text


def test_a_stopped_run_tells_records_that_are_done_and_not_yet_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scene = scene_of(45)
    files = RunFiles(tmp_path / "letters.jsonl", "letters-1")
    files.begin()
    print_kept(scene.look.spec, "redis://h", "default", files, "stopped by SIGINT", scene)
    said = capsys.readouterr().err.splitlines()
    assert said[0].endswith("stopped by SIGINT: 0 of 100 records written, 0 dropped.")
    assert said[1] == "  kept:    45 more records done, on its server until they are written"


def test_no_color_draws_without_colours(monkeypatch: pytest.MonkeyPatch) -> None:
    coloured = "\x1b[38;"
    assert coloured in drawn(scene_of(60), 80, color_system="truecolor")  # type: ignore[arg-type]
    monkeypatch.setenv("NO_COLOR", "1")
    assert coloured not in drawn(scene_of(60), 80, color_system="truecolor")  # type: ignore[arg-type]


def test_the_last_picture_stays_when_the_view_is_closed() -> None:
    stream = io.StringIO()
    scene = scene_of(100)
    view = LiveView(scene.look.spec, Console(file=stream, width=80, force_terminal=True))
    view.show(scene)
    view.close()
    assert stream.getvalue().rstrip("\n\x1b[?25h").endswith("under way")
    view = LiveView(scene.look.spec, Console(file=io.StringIO()))
    view.close()  # which nothing was shown in


def test_the_report_tells_use_reasons_what_held_it_up_and_the_most_that_was_seen(
    tmp_path: Path,
) -> None:
    history = RunHistory()
    for scene in (scene_of(10, windows=(BUSY,)), scene_of(50, windows=(BUSY,)), scene_of(98, 2)):
        history.note(scene)
    summary = RunSummary(
        records=100,
        written=98,
        dropped=2,
        output=Path("/out/letters.jsonl"),
        dropped_file=Path("/out/letters.dropped.jsonl"),
        reasons={"summary: a|b": 2},
    )
    files = history.write(tmp_path / "new" / "report.md", summary)
    assert [path.name for path in files] == ["report.md", "report.png"]
    assert files[1].read_bytes().startswith(b"\x89PNG")
    lines = files[0].read_text().splitlines()
    for told in (
        "98 of 100 records written, 2 dropped. It took 60 s.",
        "| summary | 98 | 100 | 2 | 3 | 1,000 | 500 | 0.0020 USD | 70 s | 0 | 0 | 61 s |",
        "| local/mock-large | 100 | 2 | 3 | 1,000 | 500 | 0.0020 USD | 70 s |",
        "| all | 100 | 2 | 3 | 1,000 | 500 | 0.0020 USD | 70 s |",
        "| summary: a\\|b | 2 |",
        "| request wait | 66% |",
        "| provider | 33% |",
        "| calls of local/mock-large in flight | 24 | 8 |",
        "| row groups in flight | 1 | 4 |",
        "| tasks queued in the pool | 0 |  |",
        "![Windows over time](report.png)",
    ):
        assert told in lines, files[0].read_text()


def test_a_report_lies_beside_the_output_unless_another_file_or_none_is_asked_for() -> None:
    output, other = Path("/out/letters.parquet"), Path("r.md")
    assert report_path(output, None, no_report=False) == Path("/out/letters.report.md")
    assert report_path(output, other, no_report=False) == other
    assert report_path(output, None, no_report=True) is None
    with pytest.raises(click.UsageError, match="exclude each other"):
        report_path(output, other, no_report=True)


@pytest.mark.parametrize(
    ("report", "said"),
    [
        ("seed.csv", "seed.csv is no Markdown file; name one that ends with .md"),
        ("folder.md", "folder.md is a folder; name a file in it"),
        ("seed.csv/r.md", "seed.csv is no folder"),
        ("out.md", "out.md is the output; name another file"),
        ("x" * 256 + ".md", "would have 259 bytes"),
    ],
)
def test_a_report_that_overwrites_another_file_is_refused_before_the_run(
    tmp_path: Path, report: str, said: str
) -> None:
    (tmp_path / "seed.csv").touch()
    (tmp_path / "folder.md").mkdir()
    with pytest.raises(ConfigurationError, match=f"{re.escape(said)}.*Nothing was begun"):
        report_path(tmp_path / "out.md", tmp_path / report, no_report=False)


def test_the_report_of_a_run_without_models_warns_of_nothing(tmp_path: Path) -> None:
    history = RunHistory()
    history.note(scene_of(10, windows=()))
    summary = RunSummary(
        records=100, written=100, dropped=0, output=Path("/o.jsonl"), dropped_file=None
    )
    assert len(history.write(tmp_path / "report.md", summary)) == len(("report", "plot"))


def test_a_run_that_was_never_looked_at_has_a_report_that_says_so(tmp_path: Path) -> None:
    summary = RunSummary(
        records=1, written=1, dropped=0, output=Path("/o.jsonl"), dropped_file=None
    )
    (report,) = RunHistory().write(tmp_path / "report.md", summary)
    assert "The run ended before it was looked at." in report.read_text()


def test_a_report_that_cannot_be_written_is_told_and_hides_no_count(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "r.md").mkdir()
    summary = RunSummary(
        records=2, written=1, dropped=1, output=Path("/o.jsonl"), dropped_file=Path("/d.jsonl")
    )
    write_report(RunHistory(), tmp_path / "r.md", summary)
    assert "Warning: the report" in capsys.readouterr().err
    with pytest.raises(SystemExit) as ended:
        conclude(summary)
    assert ended.value.code == EXIT_NOT_ALL
    assert "1 of 2 records written to /o.jsonl, 1 dropped" in capsys.readouterr().out
