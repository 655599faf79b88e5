"""Runs at one instant, made by hand, for tests of what people are shown."""

from __future__ import annotations

import json
from typing import Any

from forebay.commands.run_scene import RunScene
from forebay.contracts.identity import ProviderModelKey, RequestResourceKey
from forebay.contracts.run_use import ColumnUse, ModelUse
from forebay.contracts.runs import RunSpec
from forebay.contracts.snapshots import DomainSnapshot, WaitingGroupSnapshot
from forebay.contracts.tasks import TaskDenialReason
from forebay.contracts.workflow import Workflow
from forebay.coordinator.runs.looking import RunLook
from forebay.coordinator.tasks.snapshots import decode_snapshot

MODEL = ProviderModelKey(provider_name="local", model_id="mock-large")


def workflow_of(records: int = 100) -> Workflow:
    document: dict[str, Any] = {
        "name": "letters",
        "output": {"path": "/out/letters.jsonl"},
        "providers": {"local": {"base_url": "http://localhost:1/v1"}},
        "models": {
            "writer": {
                "provider": "local",
                "model": "mock-large",
                "max_parallel_requests": 8,
                "input_price": 1.0,
                "output_price": 2.0,
            }
        },
        "file": "/letters.toml",
        "columns": [],
        "seed": {"path": "/seed.csv", "size_bytes": 1, "sha256": "0" * 64, "records": records},
    }
    return Workflow.model_validate_json(json.dumps(document))


def window(*, waiting: tuple[str, ...] = (), **changes: Any) -> DomainSnapshot:
    """A window of 24, of which 3 calls are in flight."""
    groups = tuple(
        WaitingGroupSnapshot(group=group, weight=1.0, tag=0.0, waiting=1) for group in waiting
    )
    values = {
        "captured_at": 0.0,
        "resource": RequestResourceKey(provider_model=MODEL),
        "in_flight_count": 3,
        "current_limit": 24,
        "effective_max": 32,
        "waiters": len(waiting),
        "cooldown_remaining_seconds": 0.0,
        "blocked_for": None,
        "waiting_groups": groups,
    }
    return DomainSnapshot.model_construct(**values | changes)


def scene_of(
    done: int = 0,
    dropped: int = 0,
    *,
    queued: int = 0,
    reasons: dict[str, int] | None = None,
    state: str = "open",
    workers: int = 2,
    windows: tuple[DomainSnapshot, ...] | None = None,
    **look: Any,
) -> RunScene:
    spec = RunSpec(run_id="letters-1", tenant="atlas", workflow=workflow_of())
    summary = ColumnUse(
        made=done,
        retried=look.pop("retried", 0),
        busy_seconds=61.0,
        models={
            "local/mock-large": ModelUse(
                calls=done + 2,
                input_tokens=1000,
                output_tokens=500,
                rate_limited=2,
                failed=3,
                busy_seconds=70.0,
            )
        },
    )
    values: dict[str, Any] = {
        "spec": spec,
        "captured_at": 100.0,
        "done": done,
        "dropped": dropped,
        "open": 1,
        "unwritten": 0,
        "written": 0,
        "driver": "d",
        "owner": "host:1",
        "begun_at": 40.0,
        "problem": None,
        "columns": {"id": ColumnUse(made=done), "summary": summary},
    }
    capture = {
        "generation": "born",
        "now_us": "100",
        "state": state,
        "policy": "",
        "queued": queued,
        "delayed": 0,
        "parked": 0,
        "running": 0,
        "limits": {},
        "leased": {},
        "kept": {},
        "groups": (),
        "reasons": {TaskDenialReason(name): count for name, count in (reasons or {}).items()},
        "is_complete": True,
        "due_us": "",
    }
    found = (window(),) if windows is None else windows
    return RunScene(
        look=RunLook(**values | look),
        windows={f"local/mock-large{n or ''}": one for n, one in enumerate(found)},
        pool=decode_snapshot(capture),
        workers=workers,
    )
