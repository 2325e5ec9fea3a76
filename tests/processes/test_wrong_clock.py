"""Workers whose host has a wrong clock, and one that jumps: they go by the database's."""

from __future__ import annotations

import pytest

from tests.length import LONG
from tests.processes import flows, parents
from tests.processes.harness import Site, until


@pytest.mark.parametrize("clock", ["forward", "back"] if LONG else ["back"])
async def test_a_host_whose_clock_jumps_by_years_does_no_harm(site: Site, clock: str) -> None:
    """LF18 the database's clock only: a host's that is wrong and jumps fires no timer early, late or never."""
    begun = site.one("select extract(epoch from now()) * 1000000")
    dying, heir = site.worker(clock=clock, passivate_after=0.05), site.worker(clock=clock, passivate_after=0.05)
    names = {await dying.ready(), await heir.ready()}
    runs = [await site.start(flows.paced, f"t{number}", pause_s=0.3) for number in range(6)]
    families = [await site.start(parents.family, f"f{number}", children=3, steps=2) for number in range(2)]
    asleep = await site.start(flows.sleeper, "asleep", pause_s=86_400)
    await until(lambda: site.did("t0#0"), "they are at work")
    await dying.die()
    for run in runs:
        assert await run.result(timeout=30) == [f"{run.id}#0", f"{run.id}#1"]
    for family in families:
        assert await family.result(timeout=30) == 6
    await until(lambda: site.alive() == {heir.pid}, "the dead one is found out, and nobody else is taken for dead")
    assert {row[0] for row in site.sql("select worker_id from continuum.workers where dead_at is null")} < names
    ended = site.one("select extract(epoch from now()) * 1000000")
    first, last = site.sql("select min(at_us), max(at_us) from continuum.events")[0]
    assert begun - 1_000_000 < first <= last < ended + 1_000_000
    assert (await asleep.describe()).state in ("suspended", "running")
    site.check(open_runs=1)
