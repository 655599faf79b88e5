"""`forebay apply` on a server: shown, set once, refused where something changed meanwhile."""

from __future__ import annotations

import re
from pathlib import Path

from forebay.contracts.errors import ConfigurationError
from forebay.coordinator.requests.controller import AdaptiveRequestAdmissionController
from forebay.coordinator.requests.snapshots import RequestPressureSnapshotProvider
from forebay.coordinator.server_connection import ServerConnection
from tests.contract.test_explain_command import MODEL, forebay
from tests.support_tasks import joined

FILE = """\
[caps]
"p/m" = 3
[pools.mail]
state = "paused"
limits = { gpu = 0 }
"""


async def test_a_file_is_applied_once_and_refused_after_a_change(
    connection: ServerConnection, redis_url: str, tmp_path: Path
) -> None:
    file = tmp_path / "night.toml"
    file.write_text(FILE)
    requests = AdaptiveRequestAdmissionController(connection)
    await requests.register(MODEL, "main", 8)
    async with joined(connection, "mail") as tasks:
        await tasks.set_limit("gpu", 6)
        shown = await forebay("apply", str(file), "--url", redis_url)  # nobody answers
        assert shown.exit_code == 1
        assert "  cap of p/m: none -> 3\n  state of pool mail: open -> paused\n" in shown.output
        (digest,) = re.findall("digest of now ([0-9a-f]{12})", shown.output)
        pressure = RequestPressureSnapshotProvider(connection)
        assert (await pressure.global_snapshot(MODEL)).override_cap is None

        await tasks.set_limit("gpu", 5, holder="operator")
        words = ("apply", str(file), "--yes", "--url", redis_url)
        shown = await forebay(*words, "--expect", digest)
        assert isinstance(shown.exception, ConfigurationError)
        assert (await pressure.global_snapshot(MODEL)).override_cap is None

        shown = await forebay(*words)
        assert shown.exit_code == 0
        assert "limit of gpu of pool mail: 5 -> 0" in shown.output
        assert (await pressure.global_snapshot(MODEL)).override_cap == 3
        assert (await tasks.view()).limits["gpu"] == 0
        assert "0 of 3 settings differ" in (await forebay(*words)).output
        file.write_text('[caps]\n"p/m" = "none"\n[pools.mail]\nlimits = { gpu = "none" }\n')
        assert (await forebay(*words)).exit_code == 0
        assert (await pressure.global_snapshot(MODEL)).override_cap is None
    await requests.close()


async def test_mistakes_name_line_and_what_was_meant(redis_url: str, tmp_path: Path) -> None:
    file = tmp_path / "night.toml"
    file.write_text('[caps]\n"m" = 3\n"p/m" = 0\n[pools.mail]\nstat = "open"\nlimits = 3\n')
    shown = await forebay("apply", str(file), "--url", redis_url)
    assert isinstance(shown.exception, ConfigurationError)
    lines = str(shown.exception).splitlines()
    assert [line.partition(f"{file}:")[2].partition(":")[0] for line in lines] == list("2356")
    assert "unknown key; did you mean 'state'?" in lines[2]
