"""The end of a synchronous program whose client was never closed."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import pytest

from tests.support_raw_provider import RawProvider

PROGRAM = """
import sys
import forebay

client = forebay.http_client(
    sys.argv[1],
    sync=True,
    max_parallel_requests=2,
    resolve=forebay.HttpResolver({sys.argv[3]: "p"}),
    client_options={"base_url": sys.argv[2], "timeout": 60},
)
print(client.post("/chat/completions", json={"model": "m", "messages": []}).status_code)
"""


@pytest.mark.parametrize("kind", ["another's server", "a private server"])
async def test_a_program_that_closes_nothing_ends_in_silence(
    redis_url: str, provider: RawProvider, tmp_path: Path, kind: str
) -> None:
    url = redis_url if kind == "another's server" else "embedded://"
    program = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", PROGRAM, url, provider.base_url, provider.host),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "XDG_DATA_HOME": str(tmp_path)},
    )
    told, complained = await program.communicate()
    assert (program.returncode, told.strip(), complained.decode()) == (0, b"200", "")
