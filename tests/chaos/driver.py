"""A process that drives one run to its end, begun again under its id as often as it is killed."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path

from forebay.contracts.runs import RunSpec
from forebay.contracts.settings import MemberSettings
from forebay.coordinator.server_connection import ServerConnection
from forebay.workers.runs.driver import RunDriver
from forebay.workers.runs.workflow_file import load_workflow


async def main(url: str, workflow_file: Path, run_id: str) -> None:
    """Drive the run, and say what it wrote and dropped."""
    workflow = load_workflow(workflow_file, environ=os.environ)
    path = workflow_file.parent / f"{run_id}.jsonl"
    output = workflow.output.model_copy(update={"path": str(path)})
    run = RunSpec(
        run_id=run_id, tenant="runs", workflow=workflow.model_copy(update={"output": output})
    )
    settings = MemberSettings(ttl_seconds=3.0, call_timeout_seconds=2.0)
    async with await ServerConnection.open(url, settings) as connection:
        summary = await RunDriver(connection, run, pool="runs").drive()
    dropped = None if summary.dropped_file is None else str(summary.dropped_file)
    done = {"output": str(summary.output), "dropped": dropped, "records": summary.records}
    path.with_suffix(".done").write_text(json.dumps(done))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], Path(sys.argv[2]), sys.argv[3]))
