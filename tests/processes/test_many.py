"""Very many runs in one worker's memory."""

from __future__ import annotations

from tests.length import at_length
from tests.processes import flows, parents
from tests.processes.harness import LONG, Site, until

DORMITORIES, EACH = (99 if LONG else 8), 100
MANY = DORMITORIES * (EACH + 1)


@at_length
async def test_many_resident_runs_keep_their_leases_under_load(site: Site) -> None:
    """LF17 10k resident runs keep their leases under load ; nobody takes them over."""
    worker = site.worker(lease=2, heartbeat=0.2, cache=2 * MANY, passivate_after=3600)
    name = await worker.ready()
    other = site.worker("step", "paced", lease=2)  # somebody who would take over
    await other.ready()
    asleep = [
        await site.start(flows.dormitory, f"d{number}", children=EACH, pause_s=86_400)
        for number in range(DORMITORIES)
    ]
    held = "select count(*) from continuum.runs where lease_owner = %s"
    await until(lambda: site.one(held, name) == MANY, "all are in memory", patience_s=60)
    load = [await site.start(parents.family, f"f{number}", children=40, steps=8) for number in range(4)]
    for run in load:
        assert await run.result(timeout=60) == 320
    watched = "select min(extract(epoch from now() - connected_at)) > 3 from continuum.workers"
    await until(lambda: site.one(watched), "more than a lease time has passed")
    assert site.one(held, name) == MANY
    assert site.tokens("d%") == {1}
    assert worker.said("reborn") == []
    assert worker.said("silent") == []
    assert site.declared_dead() == 0
    for run in asleep:
        await run.cancel()
    last = await site.start(flows.leaf, "last")
    assert await last.result(timeout=30) == 3
    site.check(open_runs=MANY)
