"""A pool with a task in each place; its members are played and state what they hold."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any, Final

from redis.exceptions import ResponseError

from forebay.contracts.tasks import TaskAdmissionLease
from forebay.coordinator.server.membership import Membership
from forebay.coordinator.tasks.operations import decode_lease
from forebay.coordinator.tasks.restating import Hold
from tests.contract.pool_under_clock import MODEL, ONE, Pool, task_of
from tests.contract.run_plans import plan, values_of
from tests.contract.shard_under_clock import TTL_US
from tests.support_records import read_record

MEMBERS: Final = ("m", "n")
INTERVAL_SECONDS: Final = TTL_US / 3e6
LISTENING_KEY: Final = "fb:test:listening"
RUN_KEY: Final = "fb:test:run_id"
TWO_GPUS: Final = "gpu=2,submission=1"


def payload_of(group: str, asks: str, function: str, weight: object, limit: object) -> bytes:
    """Return a job's payload as a pool of arq's jobs writes it, with its terms first."""
    return json.dumps({"fb": f"forebay|{group}|{asks}|{function}|{weight}|{limit}|"}).encode()


class Fleet:
    """Two members of a pool, with what each holds."""

    def __init__(self, pool: Pool) -> None:
        self.pool = pool
        self.held: dict[str, dict[str, TaskAdmissionLease]] = {member: {} for member in MEMBERS}
        self.generations = dict.fromkeys(MEMBERS, "born")
        self.functions = {"m": ("f",), "n": ("f", "g")}
        self.memory = ""
        self.lost: dict[str, str] = {}

    def open(self) -> None:
        pool = self.pool
        pool.open(*MEMBERS, gpu=2)
        for member in MEMBERS:
            pool.ask(member, "serve", *self.functions[member])

    def submit(
        self, task_id: str, group: str, function: str = "f", asks: str = ONE, **terms: Any
    ) -> None:
        weight, limit = terms.get("weight", 1), terms.get("limit", "")
        payload = payload_of(group, asks, function, weight, limit)
        terms |= {"payload": payload, "function": function}
        assert self.pool.submit(task_id, group, asks, **terms)[0] == "accepted"

    def fill(self) -> None:
        """Put a task into each place, and a run with row groups in each state."""
        pool = self.pool
        self.lose_three_with_a_member()
        self.begin_run()
        for n in range(4):
            self.submit(f"a{n}", "a", weight=2, limit=5)
        self.admit("m", 3)
        self.admit("n", 1)
        for n in range(3):
            self.submit(f"b{n}", "b", "g", MODEL, weight=0.5)
        self.submit("later", "b", delay_us=60_000_000)
        self.submit("latest", "away", delay_us=3_600_000_000)
        self.submit("parked", "c", asks=TWO_GPUS)
        pool.ask("m", "claim", "gpu", "tenant", 1)
        self.submit("unserved", "b", "nobodys")
        self.remember()

    def lose_three_with_a_member(self) -> None:
        """Let three tasks be suspects, of which each member runs one."""
        pool = self.pool
        pool.join("dead")
        pool.ask("dead", "serve", "f")
        for n in range(3):
            self.submit(f"suspect{n}", "b")
        assert len(pool.admit(3, by="dead")) == 3
        pool.pass_time(TTL_US / 1e6 - 1)
        self.beat()
        pool.pass_time(2)
        for member in MEMBERS:
            self.admit(member, 1)
        assert pool.count("suspect_tasks") == 1

    def begin_run(self) -> None:
        """Begin a run with a row group to be written, one half made, and one that just began."""
        pool = self.pool
        text = plan(records=8, buffer_size=2, max_open=3, limits={"gpu": 2})
        pool.ask("n", "run_submit", "run", text, "the workflow")
        while not pool.client.exists(pool.keys["checkpoints"]):
            (lease_id,) = self.admit("m", 1)
            self.finish("m", lease_id, *values_of(lease_id))

    def remember(self) -> None:
        self.memory = json.dumps(self.pool.ask("m", "sweep")[2])

    def admit(self, member: str, slots: int) -> list[str]:
        """Let a member take tasks; return the ids of its new leases."""
        answer = self.pool.ask_for(slots, member)
        for terms in answer.leases:
            self.held[member][terms[0]] = self._lease(terms, member)
        return [terms[0] for terms in answer.leases]

    def _lease(self, terms: list[str], member: str) -> TaskAdmissionLease:
        membership = Membership(
            member_id=member,
            generation=self.generations[member],
            keys=self.pool.keys,
            run_id="run",
            ttl_seconds=TTL_US / 1e6,
            acknowledged_at=0.0,
            on_unknown=lambda _membership: None,
        )
        return decode_lease(terms, self.pool.payloads, membership)

    def finish(self, member: str, lease_id: str, *cells: Any) -> str:
        del self.held[member][lease_id]
        return self.pool.finish(lease_id, *cells, by=member)

    def beat(self) -> None:
        for member in MEMBERS:
            self.pool.beat(member)

    # -- a loss, and what follows

    def listen(self) -> None:
        self.pool.client.sadd(LISTENING_KEY, *MEMBERS)

    def try_sweep(self, member: str) -> bool:
        """Let a member look at its pool; False where the pool does not know it as one."""
        try:
            self.pool.ask(member, "sweep")
        except ResponseError as error:
            if "NOMEMBER" not in str(error):
                raise
            self.pool.batches[member] -= 1
            return False
        return True

    def come_back(self, *members: str, generation: str = "anew") -> dict[str, str]:
        """Let members join again and state everything; return their statuses."""
        statuses = {}
        for member in members or MEMBERS:
            remembered = self.generations[member]
            reply = self.pool.join_again(member, remembered, generation=generation)
            statuses[member], self.generations[member] = reply[3], reply[1]
            if reply[3] == "forgotten":
                self.state(member)
        return statuses

    def state(self, member: str) -> None:
        """Let a member state what it remembers, serves and holds, as production does."""
        name, _count, *terms = Hold(tuple(self.held[member].values()), 60.0).encode()
        recall = [("recall", self.memory)] if self.memory else []
        serve = ("serve", *self.functions[member])
        *_, held = self.pool.ask_all(member, *recall, serve, (name, *terms))
        for lease_id in held[1]:
            del self.held[member][lease_id]
        for lease_id in held[2]:
            self.pool.ask(member, "payload", lease_id, self.held[member][lease_id].item.payload)
        _word, known, _rest = self.pool.ask(member, "inventory", "")
        for lease_id in known:
            if lease_id not in self.held[member]:
                self.pool.ask(member, "retry", lease_id, 0, 1)

    def recover(self) -> None:
        """Let calls meet what was lost, members come back, and the recovery end."""
        for _ in range(2):
            for member in MEMBERS:
                self.try_sweep(member)
            self.come_back()
            self.pool.pass_time(0.1)
        self.pool.pass_time(INTERVAL_SECONDS)
        self.beat()
        for member in MEMBERS:
            lost = self.pool.ask(member, "sweep")[3]
            self.lost |= dict(lost)

    def run_all(self) -> list[str]:
        """End what runs, then all that waits; return the tasks in order."""
        ran = []
        for member in MEMBERS:
            for lease_id in list(self.held[member]):
                assert self.finish(member, lease_id, *cells_of(lease_id)) == "released"
                ran.append(task_of(lease_id))
        taken = True
        while taken:
            taken = False
            for member in MEMBERS:
                for lease_id in self.admit(member, 1):
                    taken = True
                    assert self.finish(member, lease_id, *cells_of(lease_id)) == "released"
                    ran.append(task_of(lease_id))
        return ran


def lease_named(lease: TaskAdmissionLease, lease_id: str) -> TaskAdmissionLease:
    """Return a lease under another id."""
    return replace(lease, lease_id=lease_id)


def cells_of(lease_id: str) -> list[str]:
    return values_of(lease_id) if task_of(lease_id).startswith("run:") else []


def books(pool: Pool) -> dict[str, Any]:
    """Return what a pool holds, but for what a rebuild may choose anew: arrivals and tags."""
    client, keys = pool.client, pool.keys
    found: dict[str, Any] = {}
    tasks = _read(pool, "tasks")
    found["tasks"] = {i: [*text.split("|")[:1], *text.split("|")[2:]] for i, text in tasks.items()}
    found["leases"] = {i: text.split("|")[:4] for i, text in _read(pool, "leases").items()}
    for name in ("claims", "queue", "delayed"):
        found[name] = dict(client.zrange(keys[name], 0, -1, withscores=True))
    for name, place in {"fifo": 2, "parked": 2, "unserved": 2, "suspect_tasks": 1}.items():
        entries = client.zrange(keys[name], 0, -1)
        found[name] = [entry.decode().split("\0")[place] for entry in entries]
    for name in ("limits", "config", "functions", "watched", "row_groups", "cells"):
        found[name] = _read(pool, name)
    found["ledger"] = {name: n for name, n in _read(pool, "ledger").items() if n != "0"}
    found["held"] = set(client.zrange(keys["held"], 0, -1))
    found["checkpoints"] = client.zrange(keys["checkpoints"], 0, -1)
    found["losses"] = {i: len(text.split(",")) for i, text in _read(pool, "losses").items()}
    groups = {name: _group(text.split("|")) for name, text in _read(pool, "groups").items()}
    found["groups"] = {n: g for n, g in groups.items() if g["head"] or g["running"] or g["away"]}
    kept = ("next", "open", "unwritten", "written", "done", "dropped", "driver")
    found["progress"] = {
        name: value
        for name, value in _read(pool, "progress").items()
        if name.split("\0")[1] in kept and value != "0"
    }
    record = read_record(client, keys)
    names = ("state", "policy", "events", "max_losses", "queued", "delayed", "parked", "running")
    found["record"] = {name: record.get(name) for name in names}
    return found


def _group(part: list[str]) -> dict[str, Any]:
    terms = {"weight": float(part[0]), "limit": part[8], "head": part[9], "out": part[12]}
    return terms | {"waiting": part[3], "running": int(part[6] or 0), "away": int(part[7] or 0)}


def _read(pool: Pool, kind: str) -> dict[str, str]:
    stored = pool.client.hgetall(pool.keys[kind])
    return {name.decode(): text.decode() for name, text in stored.items()}
