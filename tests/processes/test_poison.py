"""Runs that kill whoever works on them, and rows that nobody can read: set aside, while their neighbours go on."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.processes import deadly_flows, flows
from tests.processes.harness import LONG, Site, until

MOST_DEATHS = 8  # of workers; four are needed: one that nobody is charged with, and three


@contextlib.asynccontextmanager
async def restarting(site: Site, *definitions: str) -> AsyncIterator[list[int]]:
    """Keep two workers running as a supervisor does; gives the exit codes of those that died."""
    codes: list[int] = []

    async def keep() -> None:
        while len(codes) < MOST_DEATHS:
            worker = site.worker(*definitions)
            await until(lambda: worker.code is not None, "never", patience_s=300)
            codes.append(worker.code or 0)

    keeping = [asyncio.create_task(keep()) for _ in range(2)]
    try:
        yield codes
    finally:
        for task in keeping:
            task.cancel()
        await asyncio.wait(keeping)


def parked(site: Site) -> list[str]:
    return [row[0] for row in site.sql("select run_id from continuum.runs where state = 'parked' order by 1")]


DEADLY = [(deadly_flows.deadly_workflow, -11), *([(flows.deadly_activity, 66)] if LONG else [])]


@pytest.mark.parametrize(("flow", "code"), DEADLY)
async def test_a_run_that_kills_its_workers_is_parked_and_its_neighbours_complete(
    site: Site, flow: Any, code: int
) -> None:
    """CR16 a poison run is isolated and parked after bounded attempts."""
    neighbours = [await site.start(flows.paced, f"n{number}", pause_s=0.5) for number in range(5)]
    await site.start(flow, "poison")
    async with restarting(site, "tests.processes.flows", "tests.processes.deadly_flows") as codes:
        for number, run in enumerate(neighbours):
            assert await run.result(timeout=40) == [f"n{number}#0", f"n{number}#1"]
        await until(lambda: parked(site) == ["poison"], "it is parked")
        assert set(codes) == {code}
        assert len(codes) == 4, "one death that nobody is charged with, and three"
        later = await site.start(flows.leaf, "later")
        assert await later.result(timeout=30) == 3
        found = await site.client.get_run("poison").describe()
        assert found.state == "parked"
        assert "PoisonRun" in str(found.error)
    site.check(open_runs=1)


POISON = {
    "of no type": ("nonsense", "x", "{}"),
    "not an object": ("signal_received", "go", "[]"),
    "without its field": ("signal_received", "go", "{}"),
    "of an unknown child": ("child_completed", "nobody", '{"result":1}'),
    "of another type inside": ("activity_failed", "step-1", '{"name":1,"input":null,"error":7}'),
    "empty": ("signal_received", "go", None),
}


@pytest.mark.parametrize("passivate_after", [0.01, 60])
async def test_rows_that_nobody_can_read_park_their_own_run(site: Site, passivate_after: float) -> None:
    """CR16 a poison row is isolated: its run is parked, or goes on, and the neighbours complete."""
    worker = site.worker(passivate_after=passivate_after)
    name = await worker.ready()
    runs = {what: await site.start(flows.signalled, f"r{number}") for number, what in enumerate(POISON)}
    good = await site.start(flows.signalled, "good")
    waiting = "suspended" if passivate_after < 1 else "running"
    states = "select count(*) from continuum.runs where state = %s"
    await until(lambda: site.one(states, waiting) == len(POISON) + 1, "all wait")
    for what, row in POISON.items():
        sql = "insert into continuum.inbox (run_id, type, key, payload) values (%s, %s, %s, %s) returning 1"
        site.sql(sql, runs[what].id, *row)
    site.sql("update continuum.runs set next_wakeup_at = now() where lease_owner is null returning 1")
    for payload in ("a", "b"):
        await good.signal("go", payload)
    assert await good.result(timeout=30) == "ab"
    await until(lambda: len(parked(site)) == len(POISON), f"all are parked: {site.client}")
    assert worker.code is None
    assert worker.said("reborn") == []
    assert worker.said("ready") == [name]
    later = await site.start(flows.leaf, "later")
    assert await later.result(timeout=30) == 3
    for what, run in runs.items():
        error = str((await run.describe()).error)
        assert error.startswith(("Undecodable", "NonDeterminismError")), (what, error)
    site.check(open_runs=len(POISON))
