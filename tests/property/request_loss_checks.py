"""What a request shard must be once its recovery is over, and that all of it drains."""

from __future__ import annotations

import json
from typing import Final

from tests.property.request_loss_fleet import LossFleet
from tests.property.request_loss_sessions import TTL_US
from tests.support_records import read_record, read_window
from tests.support_state import audited

STEP_SECONDS: Final = 2.5
STEPS_OF_A_TTL: Final = round(TTL_US / 1e6 / STEP_SECONDS) + 2
MOST_ROUNDS: Final = 8


def is_recovering(fleet: LossFleet) -> bool:
    return read_record(fleet.shard.client, fleet.shard.keys).get("recovering_us", "0") != "0"


def settle(fleet: LossFleet) -> None:
    """Let members sweep until no damage is left, and dead members expire; compare the books."""
    for _ in range(MOST_ROUNDS):
        before = len(fleet.model.generations)
        fleet.sweep_all()
        fleet.try_each_group()
        for _ in range(STEPS_OF_A_TTL if fleet.has_dead else 1):
            fleet.advance(STEP_SECONDS)
        fleet.sweep_all()
        if len(fleet.model.generations) == before and not is_recovering(fleet):
            break
    else:
        raise AssertionError(f"it is never whole: {fleet.model.generations}")
    fleet.has_dead, fleet.model.is_whole = False, True
    check_books(fleet)


def check_books(fleet: LossFleet) -> None:
    """The shard holds what its members remember, once, and nothing else."""
    client, keys, model = fleet.shard.client, fleet.shard.keys, fleet.model
    state = audited(client, keys)
    told = json.loads(fleet.shard.run("requests/audit", keys.all, ("json",)))
    assert not told["differences"], told["differences"]
    leases = {i: name for name, memory in model.members.items() for i in memory.leases}
    waits = {i: name for name, memory in model.members.items() for i in memory.waits}
    held = {i: lease[0] for i, lease in state["leases"].items()}
    assert held == leases, f"leases {held}, expected {leases}"
    waiting = {i: waiter[0] for i, waiter in state["waiters"].items()}
    assert waiting == waits, f"waiters {waiting}, expected {waits}"
    assert set(state["members"]) == set(model.members)
    model.found_cap(int(read_record(client, keys)["static_cap"]))
    window = read_window(client, keys)
    if model.limit is not None and window:
        limit = int(window["current_limit"])
        assert limit <= min(model.limit, model.effective_cap), (
            f"limit {limit}, expected {model.limit}"
        )
    taken = [e["to"] for e in fleet.events() if e["kind"] == "generation_changed"]
    assert taken == [g for g in model.generations if g in taken]


def drain(fleet: LossFleet) -> None:
    """End every call until nobody holds or waits; all that waited are served in order of age."""
    settle(fleet)
    while held := list(fleet.all_leases()):
        for player, lease_id in held:
            fleet.release(player, lease_id)
    assert not [memory.waits for memory in fleet.model.members.values() if memory.waits]
    check_books(fleet)
    assert read_record(fleet.shard.client, fleet.shard.keys)["in_flight"] == "0"
