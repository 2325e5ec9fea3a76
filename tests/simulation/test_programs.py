"""Generated scenarios end, as they must, in every order; on the bare core and on real workers."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from dataclasses import replace
from functools import cache
from statistics import mean
from typing import Any

import pytest

from continuum import (
    Client,
    RunCancelled,
    RunFailed,
    RunNotActive,
    RunNotFound,
    UpdateFailed,
    UpdateRefused,
    connect,
)
from tests.conformance.cluster import Cluster
from tests.conformance.conftest import one_database  # noqa: F401 - a fixture
from tests.simulation.bare import Bare, Stuck, play
from tests.simulation.census import census, walk
from tests.simulation.confluence import confluent
from tests.simulation.generate import CALM_COMPOUNDS, CALM_LEAVES, FAMILY, WILD_COMPOUNDS, WILD_LEAVES
from tests.simulation.programs import (
    DEFINITIONS,
    Action,
    Calls,
    Fault,
    Root,
    Scenario,
    WorkerPlan,
    as_python,
    install,
    read,
    scenario,
    simulated,
    whole,
    write,
)
from tests.simulation.shrink import shrink
from tests.until import PATIENCE_S

SEEDS = 200
PLAYED = 12
RARE = {"an hour's sleep"}
MUST = {"depth 3", "many children", "cascade", "third generation", "again in a child", "child with a timeout"}
MUST |= {"child cancelled then", "child sent a signal then", "activity fails", "activity ever", "activity hangs"}
MUST |= {f"from outside: {kind} a child" for kind in ("signal", "update", "cancel", "describe")}
MUST |= {"child tried again", "child that closes", "from outside: stop a root", "from outside: stop a child"}
MUST |= {"from outside: update a root", "an update asked for twice", "node answer", "node show"}
MUST |= {"map that may cancel the rest", "map that may abandon the rest", "map that counts", "map with enough"}


@pytest.fixture(autouse=True)
def ledger() -> Iterator[Calls]:
    """A ledger of the test's own."""
    made = Calls()
    before = install(made)
    yield made
    install(before)


@pytest.fixture
async def cluster(one_database: str) -> AsyncIterator[Cluster]:  # noqa: F811
    """A journal on Postgres with a client, for workers of the test's own."""
    async with connect(one_database, migrate=False) as client:
        yield Cluster(one_database, client)


@cache
def scenarios() -> list[Scenario]:
    return [scenario(seed) for seed in range(SEEDS)]


def test_each_seed_gives_a_whole_scenario_that_survives_being_written() -> None:
    for found in scenarios():
        assert whole(found), f"seed {found.seed} has runs that never end, or a confluent root that is not"
        assert read(write(found)) == found
    assert scenario(7) == scenarios()[7]


def test_every_feature_is_in_one_of_twenty_scenarios() -> None:
    counted = census(scenarios())
    assert {name: count for name, count in counted.items() if count < SEEDS / 20 and name not in RARE} == {}
    kinds = {*CALM_LEAVES, *CALM_COMPOUNDS, *FAMILY, *WILD_LEAVES, *WILD_COMPOUNDS, "again", "carry", "carried"}
    assert {f"node {kind}" for kind in kinds - {"enough"}} | MUST <= counted.keys()
    roots = [root for found in scenarios() for root in found.roots]
    assert 0.4 < mean(root.confluent for root in roots) < 0.6


def test_confluent_roots_end_alike_in_every_order_and_all_runs_end() -> None:
    runs, entries, roots, others = [], [], 0, 0
    for seed in range(PLAYED):
        found = scenario(seed)
        ends = []
        for order in range(2):
            install(Calls())
            bare = Bare(found, order)
            ends.append(bare.play())
            runs.append(len(bare.runs))
            entries.append(sum(run.size for run in bare.runs.values()))
        for root in found.roots:
            same = all(end[root.run_id] == ends[0][root.run_id] for end in ends)
            assert same or not root.confluent, f"seed {seed}: {root.run_id}\n{ends}"
            roots += root.confluent
            others += not same
    assert 5 <= mean(runs) <= 20
    assert 50 <= mean(entries) <= 200
    assert roots > PLAYED / 2
    assert others > PLAYED / 5, "no order matters to anything: the proof proves nothing"


RACES: list[list[Any]] = [
    ["race", [["sleep", 1], ["work", "w1", {"value": 1}]]],
    ["timeout", 2, ["work", "w1", {"value": 1}]],
    ["count", 1, [["sleep", 1], ["sleep", 2]]],
    ["crew", [["raise", "one"], ["raise", "two"]]],
    ["late", 2, 2],
    ["listen", "a", 1],
    ["now"],
    ["work", "w1", {"value": 1, "fails": 1, "tries": 1}],
    ["carried", "first"],
]


@pytest.mark.parametrize("node", RACES, ids=lambda node: node[0])
def test_a_race_is_not_confluent_wherever_it_is(node: list[Any]) -> None:
    assert not confluent(node)
    assert not confluent(["main", [["catch", ["all", [["sleep", 1], node]]]]])
    assert not confluent(["main", [["again", ["main", [["run", None, ["main", [node]]]]]]]])


def kid(tree: list[Any], **changes: Any) -> dict[str, Any]:
    return {"id": None, "tree": tree, "now": [], "then": [], "cancel": None, "limit": None, **changes}


@pytest.mark.parametrize("change", [{"cancel": "now"}, {"cancel": "then"}, {"limit": 1}])
def test_cancelling_is_confluent_only_for_who_waits_long_enough(change: dict[str, Any]) -> None:
    def fan(*nodes: list[Any]) -> list[Any]:
        return ["fan", "children", None, [kid(["main", list(nodes)], **change)]]

    forever = ["expire", "never", 3600]
    assert confluent(fan(forever))
    assert confluent(fan(["work", "w1", {"value": 1}], forever))
    assert not confluent(fan(["expire", "never", 60]))
    assert not confluent(fan(["raise", "early"], forever))
    assert not confluent(fan())


def test_what_waits_for_a_signal_that_nobody_sends_is_not_whole() -> None:
    tree = ["main", [["collect", "s1", 2]]]
    sent = tuple(Action(at, "signal", "r", "s1", at) for at in (1, 2))
    made = Scenario(0, (Root("r", tree, True),), sent)
    assert whole(made)
    assert play(made) == {"r": ("completed", [[[1, 2]]])}
    for lacking in (replace(made, actions=sent[:1]), replace(made, roots=(Root("r", tree, True, 1.5),))):
        assert not whole(lacking)
    with pytest.raises(Stuck, match="waits for ever, for signal s1"):
        play(replace(made, actions=sent[:1]))

    reader = kid(["main", [["read", "s2", 2]]], now=[["s2", 1]], then=[["s2", 2]])
    told = ["fan", "gather", None, [reader]]
    assert whole(Scenario(0, (Root("r", told, True),)))
    assert not whole(Scenario(0, (Root("r", ["crew", [told, ["sleep", 1]]], True),)))
    reader["then"] = []
    assert not whole(Scenario(0, (Root("r", told, True),)))
    assert not whole(Scenario(0, (Root("r", ["run", None, tree], True),)))


def test_a_child_that_is_tried_again_is_sent_what_it_reads_if_it_fails_before_it_reads() -> None:
    def told(*nodes: list[Any]) -> Scenario:
        retry = {"tries": 3, "wait": 1}
        one = kid(["main", list(nodes)], now=[["s1", 1]], then=[["s1", 2]], retry=retry, close="abandon")
        return Scenario(0, (Root("r", ["main", [["fan", "gather", 0.1, [one]]]], True),))

    early = told(["sleep", 0.5], ["flop", 2], ["collect", "s1", 2])
    assert whole(early)
    for order in range(5):
        assert play(early, order) == {"r": ("completed", [[[[[None, 3, [1, 2]]]]]])}
    assert not whole(told(["collect", "s1", 2], ["flop", 2]))
    assert not whole(told(["flop", 1], ["collect", "s1", 2], ["flop", 2]))
    assert not whole(told(["flop", 2], ["collect", "s1", 2], ["raise", "late"]))


def test_what_waits_for_an_update_that_nobody_asks_for_is_not_whole() -> None:
    tree = ["main", [["answer", "ask1", 2, 0]]]
    asked = (Action(1, "update", "r", "ask1", 3, "u1"), Action(1, "update", "r", "ask1", 4, "u2"))
    made = Scenario(0, (Root("r", tree, True),), asked)
    assert whole(made)
    assert play(made) == {"r": ("completed", [[[3, 4]]])}
    again, refused = replace(asked[0], at_s=2), Action(2, "update", "r", "ask1", -1, "u3")
    assert play(replace(made, actions=(*asked, again, refused))) == {"r": ("completed", [[[3, 4]]])}
    for other in (again, refused):
        assert not whole(replace(made, actions=(asked[0], other)))


def test_the_ledger_has_every_activity_that_a_journal_has(ledger: Calls) -> None:
    for seed in range(8):
        bare = Bare(scenario(seed), 0)
        bare.play()
        called = {(run_id, key) for run_id, key, _ in ledger.calls}
        for run_id, run in bare.runs.items():
            ended = [json.loads(entry.payload) for entry in run.entries if entry.type == "activity_completed"]
            keys = [entry["input"]["key"] for entry in ended]
            assert {entry["input"]["run_id"] for entry in ended} <= {run_id}
            assert len(keys) == len(set(keys))
            assert {(run_id, key) for key in keys} <= called


def test_an_activity_fails_as_often_as_the_world_has_seen_it_called(ledger: Calls) -> None:
    spec = {"value": 5, "fails": 2, "tries": 3}
    made = Scenario(0, (Root("r", ["main", [["work", "w1", spec]]], True),))
    ledger.note("r", "g1.w1.1", "a worker that died")
    assert play(made) == {"r": ("completed", [[5]])}
    assert ledger.calls[1:] == [("r", "g1.w1.1", "w1")] * 2


def test_a_failing_scenario_shrinks_to_what_makes_it_fail() -> None:
    found = replace(scenario(3), faults=tuple(Fault(number, "drop") for number in range(40)))
    seen = []

    def fails(candidate: Scenario) -> bool:
        seen.append(candidate)
        return Fault(17, "drop") in candidate.faults and '"raise"' in write(candidate)

    small = shrink(found, fails)
    assert fails(small)
    assert all(map(whole, seen))
    assert len(seen) <= 302
    assert small.faults == (Fault(17, "drop"),)
    assert small.workers == (WorkerPlan({}),)
    assert small.actions == ()
    seen_before = list(seen)
    seen.clear()
    assert shrink(found, fails) == small
    assert seen == seen_before[:-1]


def test_shrinking_leaves_what_one_child_needs() -> None:
    reading = next(found for found in scenarios() if '"read"' in write(found))
    small = shrink(reading, lambda candidate: '"read"' in write(candidate))
    ((root,), wanted) = small.roots, [node for node, _ in walk(small.roots[0].tree) if node[0] == "read"]
    assert len(list(walk(root.tree))) <= 5
    assert len(wanted) == 1
    assert len(json.dumps(root.tree)) < 250
    play(small)


def test_shrinking_lets_a_fault_strike_as_early_as_it_still_matters() -> None:
    found = replace(scenario(3), faults=(Fault(90, "drop"), Fault(400, "kill")))
    small = shrink(found, lambda candidate: any(fault.operation >= 31 for fault in candidate.faults), tries=5_000)
    assert [fault.operation for fault in small.faults] == [31]


def test_shrinking_stops_at_its_limit() -> None:
    tries: list[Scenario] = []

    def fails(candidate: Scenario) -> bool:
        tries.append(candidate)
        return True

    shrink(scenario(3), fails, tries=7)
    assert 0 < len(tries) <= 7


def test_a_scenario_becomes_python_text() -> None:
    found = replace(scenario(5), faults=(Fault(3, 'said "no\n"', 0.5),))
    names: dict[str, Any] = {"read": read}
    exec(as_python(found, "FOUND"), names)
    assert names["FOUND"] == found


async def test_real_workers_give_what_the_bare_core_gives(cluster: Cluster) -> None:
    """The same results from Postgres, two forgetful workers, and times a thousand times as short."""
    chosen = [scenario(seed) for seed in range(100, 104)]
    # In a thread, because a turn is refused inside a task.
    played = await asyncio.to_thread(lambda: [play(one) for one in chosen])
    expected = {run_id: end for ends in played for run_id, end in ends.items()}
    install(Calls())
    forgetful: dict[str, Any] = {"cache": 5, "passivate_after": 0.01}
    async with cluster.worker(DEFINITIONS, **forgetful), cluster.worker(DEFINITIONS, **forgetful):
        for one in chosen:
            for root in one.roots:
                await cluster.start(simulated, root.plan(pace=0.001), id=root.run_id)
        async with asyncio.TaskGroup() as asking:
            for one in chosen:
                for action in one.actions:
                    if action.kind == "update":  # whoever asks waits for what the run waits for too
                        asking.create_task(act(cluster.client, one, action))
                    else:
                        await act(cluster.client, one, action)
        roots = [root for one in chosen for root in one.roots]
        ends = dict(await asyncio.gather(*(end(cluster, root) for root in roots)))
    same = {root.run_id for root in roots if root.confluent}
    assert len(same) >= 3
    for run_id in sorted(same):
        assert ends[run_id] == expected[run_id], f"{run_id}\n{ends[run_id]}\n{expected[run_id]}"


async def act(client: Client, found: Scenario, action: Action) -> None:
    """Do what comes from outside; a child may not be there yet, or no more."""
    run = client.get_run(action.run_id)
    try:
        match action.kind:
            case "signal":
                await run.signal(action.name, action.payload, delivery_id=action.delivery_id)
            case "update":
                with suppress(UpdateRefused, UpdateFailed):
                    await run.update(action.name, action.payload, id=action.delivery_id)
            case "cancel":
                await run.cancel(action.payload)
            case "describe":
                await run.describe()
            case "start":
                (root,) = [root for root in found.roots if root.run_id == action.run_id]
                await client.start(simulated, root.plan(pace=0.001), id=root.run_id)
    except (RunNotFound, RunNotActive):
        pass


async def end(cluster: Cluster, root: Root) -> tuple[str, tuple[str, Any]]:
    """Return how a root ended, in the bare core's words."""
    run = cluster.client.get_run(root.run_id)
    try:
        return root.run_id, ("completed", await run.result(timeout=3 * PATIENCE_S))
    except RunFailed as error:
        return root.run_id, ("failed", str(error.failure))
    except RunCancelled as error:
        return root.run_id, ("cancelled", error.reason)
