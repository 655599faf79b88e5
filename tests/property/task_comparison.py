"""What of a pool and of its model must be the same after each step."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from tests.contract.pool_under_clock import Pool
from tests.property.task_model import PoolModel
from tests.support_records import read_record

COUNTS = ("queued", "delayed", "parked", "running", "unserved", "suspect_tasks", "lost")


def _text(flat: dict[bytes, bytes]) -> dict[str, str]:
    return {key.decode(): value.decode() for key, value in flat.items()}


def _scores(client: Any, key: str) -> dict[str, int]:
    return {name.decode(): int(at) for name, at in client.zrange(key, 0, -1, withscores=True)}


def _group(text: str) -> dict[str, Any]:
    part = text.split("|")
    return {
        "weight": float(part[0]),
        "tag": round(float(part[1]), 9) if part[1] else None,
        "limit": int(part[8]) if part[8] else None,
        "debt": part[13],
    }


def _debt(debt: Any) -> str:
    return ",".join(f"{name}={units}" for name, units in sorted(debt.items()) if units)


def observed_state(pool: Pool, model: PoolModel) -> dict[str, Any]:
    """Read what is stored; a group that the model has forgotten may still be, and has no say."""
    client, keys = pool.client, pool.keys
    meta = defaultdict(lambda: "0", read_record(client, keys))
    groups = {name: _group(text) for name, text in _text(client.hgetall(keys["groups"])).items()}
    known = {f"local/{name}" for name in model.groups if not model.is_idle(name)}
    tasks = {}
    for task_id, text in _text(client.hgetall(keys["tasks"])).items():
        group, arrival, signature, score, tries, *_cell, function, losses, _, _ = text.split("|")
        terms = (group, int(arrival), signature, int(score), int(tries), function, int(losses))
        tasks[task_id] = terms
    return {
        "clock": int(meta["now_us"]),
        "virtual_time": round(float(meta["virtual_time"]), 9),
        "places": int(meta["places"]),
        "counts": tuple(int(meta[n]) for n in COUNTS),
        "draining": meta.get("draining", ""),
        "losses": _text(client.hgetall(keys["losses"])),
        "watched": _text(client.hgetall(keys["watched"])),
        "first": (meta.get("first_task", ""), int(meta.get("first_since_us", 0))),
        "groups": {name: group for name, group in groups.items() if name in known},
        "tasks": tasks,
        "queue": _scores(client, keys["queue"]),
        "leases": {
            name: tuple(text.split("|")[:2])
            for name, text in _text(client.hgetall(keys["leases"])).items()
        },
        "idle": _scores(client, keys["idle"]),
        "checks": _scores(client, keys["checks"]),
        "suspects": {n: at for n, at in _scores(client, keys["suspects"]).items() if at},
        "pushes": {
            member: (
                int(text.split("|")[0]),
                [name for name in text.split("|")[2].split(",") if name],
            )
            for member, text in _text(client.hgetall(keys["pushes"])).items()
        },
        "in_progress": sorted(key.decode() for key in client.scan_iter("arq:in-progress:*")),
    }


def expected_state(model: PoolModel) -> dict[str, Any]:
    """Return the same of the model."""
    places = ("ready", "delayed", "parked", "running", "unserved", "suspect")
    lost = {task.task_id: task for task in model.tasks.values() if task.lost_with}
    running = {lease.task.task_id: lease for lease in model.leases.values()}
    return {
        "clock": model.now_us,
        "virtual_time": round(model.virtual_time, 9),
        "places": model.places,
        "counts": (*(len(model.tasks_at(place)) for place in places), len(lost)),
        "draining": model.draining,
        "losses": {task_id: ",".join(task.lost_with) for task_id, task in lost.items()},
        "watched": {
            running[task_id].member: f"{'alone' if task.was_alone else 'beside'}"
            f" {running[task_id].lease_id}"
            for task_id, task in lost.items()
            if task_id in running
        },
        "first": model.first or ("", 0),
        "groups": {
            f"local/{name}": {
                "weight": group.weight,
                "tag": None if group.tag is None else round(group.tag, 9),
                "limit": group.limit,
                "debt": _debt(group.debt),
            }
            for name, group in model.groups.items()
            if not model.is_idle(name)
        },
        "tasks": {
            task.task_id: (
                f"local/{task.group}",
                task.arrival,
                task.signature,
                task.score,
                task.tries,
                task.function,
                len(task.lost_with),
            )
            for task in model.tasks.values()
        },
        "queue": {task.task_id: task.score for task in model.tasks.values()},
        "leases": {
            lease.lease_id: (lease.member, lease.task.task_id) for lease in model.leases.values()
        },
        "idle": model.idle,
        "checks": model.listeners.look_at_us,
        "suspects": model.listeners.suspects,
        "pushes": {name: (pushes.count, pushes.unseen) for name, pushes in model.pushes.items()},
        "in_progress": sorted(
            f"arq:in-progress:{lease.task.task_id}" for lease in model.leases.values()
        ),
    }
