"""What tests share that run the support triage example on real processes."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

from forebay.contracts.runs import RunSpec
from forebay.contracts.snapshots import AuditReport
from forebay.coordinator.keys import pool_shard, request_shard
from forebay.coordinator.requests.resolver import RequestResourceResolver
from forebay.coordinator.requests.snapshots import RequestPressureSnapshotProvider
from forebay.coordinator.server.connections import open_sync
from forebay.coordinator.server.urls import parse_url
from forebay.coordinator.server_connection import ServerConnection
from forebay.coordinator.tasks.snapshots import audit_pool
from forebay.mock_provider.server import MockProviderServer
from forebay.workers.runs.workflow_file import load_workflow

ROOT = Path(__file__).parent.parent
WORKFLOW = ROOT / "examples" / "support_triage" / "workflow.toml"
COLUMNS = ["ticket_id", "customer", "channel", "message", "summary", "triage", "route"]
POOL = pool_shard("default")
PROVIDER_MODEL = RequestResourceResolver().resolve("local", "mock-large").provider_model
SHARD = request_shard(PROVIDER_MODEL)
OF_TASKS = ("tasks", "queue", "ready", "delayed", "leases")
OF_RUNS = ("runs", "progress", "cells", "row_groups", "checkpoints")


def provider_address(provider: MockProviderServer) -> dict[str, str]:
    return {"FOREBAY_PROVIDER_LOCAL_BASE_URL": provider.base_url}


def forebay(
    *arguments: object, cwd: Path, environ: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a forebay command to its end, as a user would in ``cwd``."""
    return subprocess.run(
        [sys.executable, "-m", "forebay", *map(str, arguments)],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT), **(environ or {})},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def start_forebay(
    *arguments: object, cwd: Path, environ: dict[str, str] | None = None
) -> subprocess.Popen[str]:
    """Start a forebay command, as a user would in ``cwd``."""
    return subprocess.Popen(
        [sys.executable, "-m", "forebay", *map(str, arguments)],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT), **(environ or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def seed_rows() -> list[dict[str, str]]:
    with (WORKFLOW.parent / "messages.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def read_records(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def load_run(provider: MockProviderServer, output: Path, run_id: str) -> RunSpec:
    workflow = load_workflow(WORKFLOW, environ=provider_address(provider))
    target = workflow.output.model_copy(update={"path": str(output)})
    return RunSpec(
        run_id=run_id, tenant="default", workflow=workflow.model_copy(update={"output": target})
    )


def remains(url: str) -> dict[str, object]:
    """Return what a finished run must not leave: its tasks, cells, leases and arq's keys."""
    with open_sync(parse_url(url)) as client:
        kept = {kind: 1 for kind in (*OF_TASKS, *OF_RUNS) if client.exists(POOL[kind])}
        kept |= {
            name.decode(): 1 for name in client.zrange(POOL["held"], 0, -1) if b"\0lease\0" in name
        }
        kept |= {
            f"request {kind}": 1 for kind in ("leases", "waiters") if client.exists(SHARD[kind])
        }
        kept |= {key.decode(): 1 for key in client.scan_iter("arq:*") if b"health-check" not in key}
        return kept | {
            claim.decode(): 1
            for claim in client.zrange(POOL["claims"], 0, -1)
            if b"workers" not in claim
        }


async def audits(url: str) -> list[AuditReport]:
    """Work out the books of the pool and of the provider's shard."""
    async with await ServerConnection.open(url) as connection:
        requests = RequestPressureSnapshotProvider(connection)
        return [await audit_pool(connection, "default"), await requests.audit(PROVIDER_MODEL)]
