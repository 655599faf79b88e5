"""``make chaos``: jobs under random kills, pills among them; each innocent one must succeed."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

from forebay.coordinator.server.embedded import EmbeddedServer
from tests.chaos.fleet import Chaos, run


def main() -> int:
    """Run it on a server of its own, print what came of it; return the exit code."""
    usual = Chaos()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=usual.jobs)
    parser.add_argument("--seconds", type=float, default=usual.seconds, help="of kills")
    parser.add_argument("--workers", type=int, default=usual.workers, help="of ten slots each")
    parser.add_argument("--kill-seconds", type=float, default=usual.kill_seconds, help="mean")
    parser.add_argument("--seed", type=int, default=usual.seed)
    chaos = Chaos(**vars(parser.parse_args()))
    with (
        EmbeddedServer() as server,
        tempfile.TemporaryDirectory() as folder,
        contextlib.ExitStack() as stack,
    ):
        found = asyncio.run(run(server.url, Path(folder), stack, chaos))
    print(json.dumps({"given": asdict(chaos), "found": asdict(found)}, indent=1))
    return 0 if found.is_as_promised else 1


if __name__ == "__main__":
    sys.exit(main())
