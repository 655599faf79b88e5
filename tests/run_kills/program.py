"""One run undisturbed, then runs of the same workflow under kills; what differs is returned."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from forebay.mock_provider.server import MockProviderServer
from forebay.mock_provider.truth import ProviderTruth
from tests.run_kills.accounting import paid_again
from tests.run_kills.scene import LOOK_SECONDS, Kill, Policy, Scene
from tests.run_kills.workflows import Killed
from tests.support import wait_until
from tests.support_runs import audits, remains

TRUTH: Final = ProviderTruth(latency_median_seconds=0.06, latency_sigma=0.6)
TTL_SECONDS: Final = 15.0
"""For which no worker stands still on a busy machine: others would pay again for its calls."""
MOST_SECONDS: Final = 600.0
"""Within which a run ends, on a busy machine."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a run left.

    Attributes:
        output: the bytes of its output and of its dropped records, None for a file that is not
            there.
        calls: that the provider took.
        changes: that its last driver made in the folder.
        killed: how often each kind of kill struck.
        paid_again: calls that were paid for more than once.
        differences: from what was promised.
    """

    output: tuple[bytes | None, bytes | None]
    calls: int
    changes: int
    killed: Counter[str]
    paid_again: int
    differences: list[str] = field(default_factory=list)


async def run(
    folder: Path,
    workflow: Killed,
    *,
    seed: int,
    kills: Sequence[Kill] = (),
    dies_at: Sequence[int] = (),
    policy: Policy = "always",
    ttl_seconds: float = TTL_SECONDS,
) -> Outcome:
    """Make a run to its end under kills.

    Args:
        folder: empty; what is read after a failure stays there.
        workflow: what is run.
        seed: decides how a killed driver is followed, and what a machine loses.
        kills: in the order of their calls.
        dies_at: of the drivers in their order, the change in the folder before which each dies.
        policy: how the server syncs its file.
        ttl_seconds: of the workers.
    """
    await asyncio.to_thread(folder.mkdir, parents=True)
    with MockProviderServer(TRUTH.merged(workflow.truth), seed=7) as provider:
        workflow.write(folder, provider.base_url)
        scene = Scene(
            folder=folder,
            provider=provider,
            rng=random.Random(seed),
            policy=policy,
            ttl_seconds=ttl_seconds,
            dies_at=deque(dies_at),
        )
        try:
            scene.begin()
            differences = await _until_ended(scene, kills)
            differences += await _left_on_server(scene)
        finally:
            scene.end()
        return _outcome(scene, workflow, differences)


async def _until_ended(scene: Scene, kills: Sequence[Kill]) -> list[str]:
    watching = asyncio.create_task(scene.watch_file())
    deadline = time.monotonic() + MOST_SECONDS
    left = deque(kills)
    try:
        while not scene.driver_has_ended():
            if left and scene.calls() >= left[0].after_calls:
                kill = left.popleft()
                await asyncio.sleep(kill.delay_seconds)
                scene.kill(kill)
            if time.monotonic() > deadline:
                return [f"the run did not end within {MOST_SECONDS:g} s"]
            await asyncio.sleep(LOOK_SECONDS)
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
    assert scene.driver is not None
    code = scene.driver.returncode
    return [] if code in {0, 3} else [f"the last command ended with {code}, expected 0 or 3"]


async def _left_on_server(scene: Scene) -> list[str]:
    url = scene.server.url
    with contextlib.suppress(AssertionError):
        await wait_until(lambda: not remains(url))
    left = remains(url)
    found = [f"the run left {sorted(left)} on its server"] if left else []
    found += [f"the audit found {one.differences}" for one in await audits(url) if not one.ok]
    return found


def _outcome(scene: Scene, workflow: Killed, differences: list[str]) -> Outcome:
    records = scene.records()
    again, unexplained = paid_again(records, scene.losses)
    files = (scene.folder / workflow.output, scene.folder / "out.dropped.jsonl")
    count_file = scene.folder.with_name(f"{scene.folder.name}.count")
    beside = {path.name for path in scene.folder.glob("out.*")} - {path.name for path in files}
    if beside:
        differences = [*differences, f"left beside the output: {sorted(beside)}"]
    changes = 0
    with contextlib.suppress(FileNotFoundError):
        changes = int(count_file.read_text())
    return Outcome(
        output=(_bytes_of(files[0]), _bytes_of(files[1])),
        calls=len(records),
        changes=changes,
        killed=Counter(scene.killed),
        paid_again=again,
        differences=differences + unexplained,
    )


def _bytes_of(path: Path) -> bytes | None:
    return path.read_bytes() if path.exists() else None


def compared(plain: Outcome, killed: Outcome) -> list[str]:
    """Return all differences of a killed run: those from the undisturbed one, too."""
    names = ("output", "dropped records")
    differs = [
        f"the {name} differ from those of the undisturbed run"
        for name, one, other in zip(names, plain.output, killed.output, strict=True)
        if one != other
    ]
    return killed.differences + differs
