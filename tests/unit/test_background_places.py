"""Whatever runs in the background is supervised, or somebody awaits it (issue 12.5).

Each place that starts a task, a thread or a timer is found in the sources. A timer must go through
a guard; a task or thread must stand below with who hears of its end.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
FOLDERS = ("coordinator", "workers", "forebay")
TASKS = {"create_task", "ensure_future", "Thread"}
TIMERS = {"call_later": 1, "call_at": 1, "call_soon": 0, "call_soon_threadsafe": 0}
"""Where the callback stands among the arguments."""

HEARD_OF = {
    "coordinator/supervision.py _begin": "Background itself: its callback logs and begins again",
    "coordinator/server/sentinels.py discover_master": "gathered before it returns",
    "coordinator/server/slots.py ask_nodes": "gathered before it returns",
    "coordinator/server/cluster.py ask": "every caller awaits it",
    "coordinator/server/cluster.py close_left": "its callback logs what it raised",
    "coordinator/server/host_names.py _start": "catches all that a lookup raises, and delivers it",
    "coordinator/server/heartbeat.py add": "a loop under a guard; one that ended is started again",
    "coordinator/server/embedded_watchdog.py main": "ends the server with its owner; a process",
    "coordinator/server/embedded_start.py started": "awaited at once",
    "coordinator/requests/shards.py _release": "given to the caller; catches all",
    "coordinator/requests/threads.py begin": "answers the thread that asked, however it ends",
    "workers/executor.py _release": "its callback logs what it raised",
    "workers/runs/preview.py preview": "cancelled or awaited, in order, before it returns",
    "workers/runs/prepared_runs.py get": "every caller awaits it",
    "workers/arq/contained_worker.py run": "awaited; arq's main task",
    "workers/arq/scheduler.py _start_task": "its callback gives the lease back, however it ends",
    "workers/arq/unstarted_jobs.py _end_soon": "arq's worker awaits its tasks",
    "forebay/connecting.py __init__": "its end, whatever it raised, is the result of the block",
    "forebay/mock_provider/server.py __init__": "a test's or a demo's server; start awaits it",
    "forebay/demo/scenario.py beside": "cancelled and awaited at the end of the work",
    "forebay/demo/backoff.py run": "of a TaskGroup",
    "forebay/commands/driving.py _drive_while_worked": "awaited",
    "forebay/commands/worker.py _run": "run to its end",
    "forebay/commands/worker.py worker_command": "ends the process",
    "forebay/proxy/calls.py __aenter__": "ends with the block; cancels the block's task at most",
    "forebay/proxy/waits.py reason_of": "every caller awaits it",
    "forebay/proxy/waits.py _begin_looking": "ends with the wait; its callback logs what it raised",
    "forebay/transports/admission.py ready": "every caller awaits it",
    "forebay/transports/streams.py _close_soon": "catches and logs all",
    "forebay/ops/fleet.py look": "of a TaskGroup",
    "forebay/ops/fleet.py _read_runs": "of a TaskGroup",
    "forebay/sinks/json_lines.py _begin": "counts what it cannot write; `close` waits for it",
    "forebay/sinks/stream.py _begin": "catches what the server answers, and counts what it drops",
}
SIMPLE_CALLBACKS = {
    "coordinator/supervision.py _ended": "begins the work again: makes a task and no more",
    "coordinator/server/wire.py send": "guards what it tells",
    "coordinator/server/heartbeat.py _ask_loop_to_turn": "notes the time",
    "coordinator/server/heartbeat.py _beat": "the channel guards what it tells",
    "coordinator/requests/threads.py _begin_soon": "makes a task",
    "coordinator/server/host_names.py deliver": "settles a future",
    "forebay/proxy/protocol.py _refuse": "closes the transport",
    "forebay/proxy/waits.py begin": "makes a task",
    "forebay/transports/streams.py __del__": "makes a task",
    "forebay/sinks/stream.py take": "makes a task",
}


def calls() -> Iterator[tuple[str, ast.Call]]:
    """Yield the calls in all sources, each with its file and the function that it stands in."""
    for folder in FOLDERS:
        for path in sorted((ROOT / folder).rglob("*.py")):
            name = path.relative_to(ROOT)
            if not (name.parts[0] == "forebay" and (ROOT / "forebay" / name.parts[1]).is_symlink()):
                yield from _calls_in(ast.parse(path.read_text()), str(name), "module")


def _calls_in(node: ast.AST, file: str, function: str) -> Iterator[tuple[str, ast.Call]]:
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        function = node.name
    if isinstance(node, ast.Call):
        yield f"{file} {function}", node
    for child in ast.iter_child_nodes(node):
        yield from _calls_in(child, file, function)


def name_of(call: ast.Call) -> str:
    match call.func:
        case ast.Attribute(attr=name) | ast.Name(id=name):
            return name
        case _:
            return ""


def is_guarded(callback: ast.expr) -> bool:
    """Whether a callback is a guard's ``call``, or a lambda or partial of it."""
    return "guard.call" in ast.unparse(callback)


def test_every_task_and_thread_has_somebody_who_hears_of_its_end() -> None:
    assert {place for place, call in calls() if name_of(call) in TASKS} == set(HEARD_OF)


def test_every_timer_and_callback_of_the_loop_goes_through_a_guard() -> None:
    bare = {
        place
        for place, call in calls()
        if (at := TIMERS.get(name_of(call))) is not None and not is_guarded(call.args[at])
    }
    assert bare == set(SIMPLE_CALLBACKS)
