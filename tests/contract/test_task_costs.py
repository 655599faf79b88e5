"""Each script's *Cost*: bounded by count, and the same commands however much a pool holds.

Commands are counted by the server itself, those inside of scripts too; nothing is timed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib.resources import files
from typing import Any

import pytest
import redis

from forebay.coordinator.server.connections import open_sync
from forebay.coordinator.server.urls import parse_url
from tests.contract.pool_under_clock import Pool, submission
from tests.contract.run_plans import plan
from tests.contract.test_run_rules import values_of
from tests.support_costs import FEW, MANY, commands, counted, promised
from tests.support_scripts import DEAF_KEY

TASKS = promised("tasks/batch")
COUNTS_JUDGED = (
    (files("forebay.lua") / "lib/tasks/reserve.lua").read_text()
    + """
do
  local beside = RESERVE.fitting_beside
  function RESERVE.fitting_beside(signature)
    redis.call('INCR', 'test:judged')
    return beside(signature)
  end
end
"""
)


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    with open_sync(parse_url(redis_url)) as client:
        yield client


@pytest.fixture
def pool(client: redis.Redis) -> Iterator[Pool]:
    pool = Pool(client)
    yield pool
    assert pool.audit().differences == ()
    pool.close()


# -- tasks/batch


def gather(pool: Pool, groups: int) -> None:
    """Fill a pool with groups that wait, tasks that run and members that idle."""
    pool.open("m", *(f"o{i}" for i in range(groups // 20)), submission=100_000)
    for at in range(0, groups, 50):
        submits = [submission(f"t{i}", f"g{i}") for i in range(at, at + 50)]
        pool.ask_all("m", *submits[: groups - at])
    pool.running = pool.admit(10)  # read by the asks below


@pytest.mark.parametrize(
    "ask",
    [
        lambda pool: pool.submit("new", "new"),
        lambda pool: pool.admit(1),
        lambda pool: pool.finish(pool.running[0]),
        lambda pool: pool.finish_and_admit(pool.running[0]),
        lambda pool: pool.ask("m", "retry", pool.running[1], 1_000_000, 0),
        lambda pool: pool.discard("t15"),
        lambda pool: pool.ask("m", "claim", "gpu", "me", 3),
    ],
    ids=["submit", "admit", "finish", "finish and admit", "retry", "discard", "claim"],
)
@pytest.mark.parametrize("policy", ["", "borrow"])
def test_operation_of_a_pool_costs_the_same_commands_among_many_groups(
    client: redis.Redis, ask: Callable[[Any], Any], policy: str
) -> None:
    costs = []
    for groups in (40, MANY):
        client.flushall()
        pool = Pool(client)
        gather(pool, groups)
        pool.configure(policy)
        costs.append(commands(client, lambda pool=pool: ask(pool)))
        pool.close()
    assert costs[0] == costs[1]


def test_admit_behind_unserved_first_tasks_costs_the_same_commands_among_many_groups(
    client: redis.Redis,
) -> None:
    costs = []
    for groups in (40, MANY):
        client.flushall()
        pool = Pool(client)
        pool.open("m", "old", submission=100_000)
        pool.ask("m", "serve", "older", "newer")
        pool.ask("old", "serve", "older")
        for at in range(groups):
            submits = [submission(f"{at}{f}", f"g{at:04}", function=f) for f in ("newer", "older")]
            pool.ask_all("m", *submits)
        costs.append(commands(client, lambda pool=pool: pool.admit(1, by="old")))
        assert pool.count("running") == 1
        pool.close()
    assert costs[0] == costs[1]


def test_claim_costs_the_same_commands_among_many_claims(client: redis.Redis) -> None:
    costs = []
    for holders in (1, 500):
        client.flushall()
        pool = Pool(client)
        pool.open("m")
        for i in range(holders):
            pool.ask("m", "claim", "gpu", f"holder{i}", 10 + i)
        costs.append(commands(client, lambda pool=pool: pool.ask("m", "claim", "gpu", "new", 3)))
        pool.close()
    assert costs[0] == costs[1]


@pytest.mark.parametrize("name", ["run_submit", "run_collect"])
def test_beginning_of_a_run_costs_its_open_row_groups_alone(client: redis.Redis, name: str) -> None:
    costs = []
    for records, max_open in ((100, 10), (10_000, 10), (10_000, 30)):
        client.flushall()
        pool = Pool(client)
        pool.open("m", "driver")
        text = plan(records=records, buffer_size=2, max_open=max_open)
        submit = ("run_submit", "run", text, "{}")
        if name == "run_submit":
            costs.append(commands(client, lambda pool=pool, submit=submit: pool.ask("m", *submit)))
        else:
            pool.ask("driver", *submit)
            costs.append(commands(client, lambda pool=pool: pool.ask("m", "run_collect", "run")))
        pool.close()
    few, same, many = costs
    assert few == same
    assert many <= 3 * few


def test_end_of_a_run_costs_its_own_claims_alone(client: redis.Redis) -> None:
    costs = []
    for others in (1, 500):
        client.flushall()
        pool = Pool(client)
        pool.open("m", gpu=5)
        for i in range(others):
            pool.ask("m", "claim", "gpu", f"holder{i}", 10 + i)
        pool.ask("m", "run_submit", "run", plan(limits={"gpu": 4, "request:p/m": 4}), "{}")
        costs.append(commands(client, lambda pool=pool: pool.ask("m", "run_cancel", "run")))
        pool.close()
    assert costs[0] == costs[1]


def test_pools_call_ends_no_more_attended_runs_than_it_promises(pool: Pool) -> None:
    pool.open("m", "driver")
    pool.beat("m", 3600_000_000)
    text = plan(records=1, buffer_size=1, limits={"request:p/m": 2})
    for at in range(0, 300, 20):
        submits = [("run_submit", f"r{i}", text, "{}") for i in range(at, at + 20)]
        pool.ask_all("driver", *submits)
    pool.pass_time(15.0)

    def attended() -> int:
        return int(pool.client.zlexcount(pool.keys["claims"], "[!", '["'))

    assert attended() == 300
    while before := attended():
        pool.ask_for(0)
        assert 0 < before - attended() <= TASKS["ended"]
    assert pool.client.hget(pool.keys["limits"], "request:p/m") == b"4"


def test_cancelling_a_run_costs_nothing_for_row_groups_long_written(client: redis.Redis) -> None:
    costs = []
    for written in (1, 60):
        client.flushall()
        pool = Pool(client)
        pool.open("m")
        pool.ask("m", "run_submit", "run", plan(records=400, buffer_size=2, max_open=1), "{}")
        for row_group in range(written):
            while leases := pool.admit(9):
                for lease in leases:
                    pool.finish(lease, *values_of(lease))
            assert pool.ask("m", "run_written", "run", row_group) == ["written"]
        costs.append(commands(client, lambda pool=pool: pool.ask("m", "run_cancel", "run")))
        pool.close()
    assert costs[0] == costs[1]


@pytest.mark.parametrize(("members", "functions"), [(500, 0), (1, 400), (60, 5)])
def test_pools_call_ends_no_more_than_it_promises(pool: Pool, members: int, functions: int) -> None:
    pool.open("looks")
    pool.beat("looks", 3600_000_000)
    for i in range(members):
        pool.join(f"m{i}")
        if functions:
            pool.ask(f"m{i}", "serve", *(f"f{n}" for n in range(functions)))
    pool.pass_time(15.0)

    def entries() -> int:
        return sum(int(pool.client.zcard(pool.keys[kind])) for kind in ("held", "members"))

    left = members * (functions + 1)
    while left:
        before = entries()
        pool.ask_for(0, "looks")
        assert 0 < before - entries() <= TASKS["ended"]
        left -= before - entries()


def test_pools_call_moves_no_more_tasks_than_it_promises(pool: Pool) -> None:
    pool.open("m", submission=5)
    pool.beat("m", 3600_000_000)
    for i in range(200):
        pool.submit(f"t{i}", asks="submission=5", delay_us=1_000_000)
    pool.pass_time(1.0)
    due = 0
    while due < 200:
        pool.ask_for(0)
        found = pool.count("queued") + pool.count("parked")
        assert 0 < found - due <= TASKS["due"]
        due = found
    pool.ask("m", "claim", "submission", "pool", 4)
    parked = pool.count("parked")
    assert parked <= TASKS["parked"]
    while parked < 200:
        pool.ask_for(0)
        assert 0 < pool.count("parked") - parked <= TASKS["parked"]
        parked = pool.count("parked")
    pool.ask("m", "claim", "submission", "pool", 5)
    while parked:
        assert 0 <= parked - pool.count("parked") <= TASKS["parked"]
        parked = pool.count("parked")
        pool.ask_for(0)


def test_pools_call_wakes_no_more_members_than_it_promises(pool: Pool) -> None:
    names = [f"m{i}" for i in range(150)]
    pool.open("looks", *names, submission=1000)
    for name in names:
        pool.ask_for(1, name)
    pool.listen_to_all()
    pool.ask_all("looks", *(submission(f"t{i}", f"g{i}") for i in range(150)))
    assert len(pool.woken()) == TASKS["wake"]


def test_pools_call_looks_at_no_more_idle_members_than_it_promises(pool: Pool) -> None:
    """As after a deploy: nobody listens to any of them."""
    dead = [f"m{i}" for i in range(600)]
    pool.open("looks", *dead, submission=1000)
    for name in dead:
        pool.ask_for(1, name)
    pool.client.sadd(DEAF_KEY, *dead)
    suspects = 0
    pool.submit("t", by="looks")
    while suspects < len(dead):
        found = int(pool.client.zcard(pool.keys["suspects"]))
        assert 0 < found - suspects <= TASKS["idle"]
        suspects = found
        pool.ask_for(0, "looks")


@pytest.mark.parametrize("waiting", [1, 30, 200])
def test_pools_call_looks_at_no_more_functions_of_idle_members_than_it_promises(
    client: redis.Redis, pool: Pool, waiting: int
) -> None:
    """Of what waits they serve nothing, and who does is busy."""
    idle = 150
    pool.open("busy", submission=1000)
    for i in range(idle):
        pool.join(f"m{i}")
        pool.ask(f"m{i}", "serve", "another")
        pool.ask_for(1, f"m{i}")
    pool.ask("busy", "serve", *(f"f{i}" for i in range(waiting)))
    for i in range(waiting):
        pool.submit(f"t{i}", f"g{i}", function=f"f{i}", by="busy")
    with counted(client) as count:
        pool.ask_for(0, "busy")
    assert count.all <= 2 * idle + 4 * waiting
    assert count.by_name["zmscore"] <= min(idle, 1 + TASKS["looks"] // waiting)


def test_idle_member_that_serves_what_waits_is_woken_behind_many_that_do_not(pool: Pool) -> None:
    others = [f"m{i}" for i in range(100)]
    pool.open("busy", *others, "serves", submission=1000)
    for name in others:
        pool.ask(name, "serve", "another")
        pool.ask_for(9, name)
    pool.ask("serves", "serve", "f")
    pool.ask_for(1, "serves")
    pool.listen_to_all()
    pool.ask_all("busy", *(submission(f"t{i}", f"g{i}", function="f") for i in range(3)))
    assert pool.woken() == ["serves"]


def test_who_stands_first_is_judged_beside_no_more_asks_than_it_promises(pool: Pool) -> None:
    """Groups at their limits, each with its own model, stand before one that presses on all."""
    models = [f"request:p/m{i}" for i in range(40)]
    pool.open("m", **dict.fromkeys(models, 9), submission=40)
    pool.put_behind("z")
    for n in range(2):
        for i, model in enumerate(models):
            pool.submit(f"{i}.{n}", f"g{i}", f"{model}=1,submission=1", limit=1)
        pool.admit(40)
    every = ",".join(f"{model}=1" for model in sorted(models))
    pool.submit("presses", "z", f"{every},submission=1")
    judged = {"lib/tasks/reserve": COUNTS_JUDGED}
    pool.run("tasks/batch", "m", pool.batches["m"] + 1, "admit", 4, 0, 1, "", "", fragments=judged)
    assert int(pool.client.get("test:judged")) == TASKS["asks"]


@pytest.mark.parametrize(
    ("name", "question"),
    [
        ("tasks/snapshot", ()),
        *(("tasks/look", (question,)) for question in ("show", "waiters", "shares", "events")),
    ],
)
def test_look_at_a_pool_has_no_more_rows_than_it_promises(
    client: redis.Redis, name: str, question: tuple[str, ...]
) -> None:
    costs = []
    for groups in (MANY, 2 * MANY):
        client.flushall()
        pool = Pool(client)
        gather(pool, groups)
        for i in range(150):
            pool.join(f"member{i}")
        costs.append(commands(client, lambda pool=pool: pool.run(name, *question, 100)))
        pool.close()
    assert costs[0] == costs[1]


def test_explanation_scans_no_more_than_it_promises(client: redis.Redis) -> None:
    most, pool = promised("tasks/explain"), Pool(client)
    gather(pool, FEW)
    pool.ask("m", "run_submit", "run", plan(), "{}")
    costs = []
    for more in (12_000, 24_000):
        for kind in ("leases", "tasks"):
            [text, *_] = client.hvals(pool.keys[kind])
            client.hset(pool.keys[kind], mapping={f"other {i}": text for i in range(more)})
        for subject in (pool.running[0].split("~")[0], "t15", "g7", "run"):
            with counted(client) as count:
                pool.run("tasks/explain", 100, subject)
            assert count.by_name.pop("hscan") <= most["leases"] / 1000 + 1 + 2 * most["scans"]
            costs.append(count.by_name)
    # Not equal: 20 scans reach a run's task among 12,000 others, and by chance alone among 24,000.
    for of_few, of_many in zip(costs[:4], costs[4:], strict=True):
        assert all(of_many.get(name, 0) <= number for name, number in of_few.items()), (
            of_few,
            of_many,
        )
        assert of_many.keys() <= of_few.keys()
    pool.close()


def test_audit_of_a_pool_above_its_bound_compares_totals_alone(client: redis.Redis) -> None:
    pool = Pool(client)
    pool.open("m")
    most = promised("tasks/audit")["entries"]
    pipe = client.pipeline(transaction=False)
    for at in range(0, most, 1000):
        pipe.hset(pool.keys["groups"], mapping={f"g{i}": "x" for i in range(at, at + 1000)})
    pipe.execute()
    with counted(client) as count:
        report = pool.audit()
    assert report.is_complete is False
    assert count.all < 100
    pool.close()


def test_snapshot_reads_a_line_and_the_tasks_of_a_group_together(
    client: redis.Redis, pool: Pool
) -> None:
    gather(pool, 150)
    for number in range(5):
        submits = [submission(f"more{number}.{group}", f"g{group}") for group in range(100)]
        pool.ask_all("m", *submits[:50])
        pool.ask_all("m", *submits[50:])
    with counted(client) as count:
        pool.capture()
    assert count.by_name["hget"] < 100  # records of tasks and groups come many at a time
    assert count.by_name["zrange"] <= 112  # a few for the line, and one for each of 100 groups
