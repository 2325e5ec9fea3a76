"""Whose runs are taken over and when; what a fault inside a healthy worker costs."""

from __future__ import annotations

from tests.length import at_length
from tests.processes import flows
from tests.processes.harness import Site, until


async def test_orphans_are_taken_over_by_the_worker_that_is_left(site: Site) -> None:
    """CR04 an orphaned lease is taken over within a bound. CR10 worker death mid-activity finishes elsewhere."""
    dying, heir = site.worker(), site.worker()
    await dying.ready()
    await heir.ready()
    runs = [await site.start(flows.held, f"r{number}", gate="go") for number in range(8)]
    await until(lambda: all(site.did(f"r{number}#1") for number in range(8)), "all are in their activity")
    mine = [number for number in range(8) if site.did(f"r{number}#1") == [dying.pid]]
    await dying.die()
    await until(lambda: site.alive() == {heir.pid}, "its death is noticed")
    await until(lambda: all(site.did(f"r{number}#1")[1:] == [heir.pid] for number in mine), "the heir began anew")
    site.open("go")
    for run in runs:
        assert await run.result(timeout=30) == 3
    for number in range(8):
        assert len(site.did(f"r{number}#1")) == (2 if number in mine else 1)
        assert len(site.did(f"r{number}#0")) == 1
    site.check()


@at_length
async def test_a_live_workers_lease_is_never_touched(site: Site) -> None:
    """CR05 a live remote lease is never touched, however long it is held."""
    one = site.worker(lease=1.5)
    await one.ready()
    runs = [await site.start(flows.held, f"r{number}", gate="go") for number in range(5)]
    await until(lambda: all(site.did(f"r{number}#1") for number in range(5)), "it is in their activities")
    other = site.worker(lease=1.5)
    await other.ready()
    watched = "select min(extract(epoch from now() - connected_at)) > 2 from continuum.workers"
    await until(lambda: site.one(watched), "both have been there for more than a lease time")
    assert site.tokens("r%") == {1}
    assert site.alive() == {one.pid, other.pid}
    site.open("go")
    for run in runs:
        assert await run.result(timeout=30) == 3
    assert {line.pid for line in site.ledger()} == {one.pid}
    site.check()


POINTS = ("claim.adopted", "turn.begin", "turn.taken", "turn.committed", "activity.begin", "activity.ended")


async def test_runs_whose_turns_fail_are_resumed_by_the_same_worker(site: Site) -> None:
    """CR14 an engine task that dies on a healthy worker is resumed promptly: its lease would last an hour."""
    crashes = [{"point": point, "run": f"r{number}", "do": "raise"} for number, point in enumerate(POINTS)]
    worker = site.worker(lease=3600, crashes=crashes)
    await worker.ready()
    runs = [await site.start(flows.leaf, f"r{number}", steps=4) for number in range(len(POINTS))]
    neighbours = [await site.start(flows.leaf, f"n{number}", steps=4) for number in range(5)]
    for run in (*neighbours, *runs):
        assert await run.result(timeout=20) == 4
    assert set(worker.said("struck")) == set(POINTS)
    assert worker.code is None
    assert worker.said("reborn") == []
    site.check()


async def test_a_worker_that_loses_one_run_goes_on_with_the_others(site: Site) -> None:
    """LF12 a fenced-out worker drops its copy and goes on with other runs."""
    worker = site.worker()
    name = await worker.ready()
    runs = [await site.start(flows.held, f"r{number}", gate="go") for number in range(5)]
    await until(lambda: all(site.did(f"r{number}#1") for number in range(5)), "it is in their activities")
    site.sql(_TAKE_AWAY, "r0")
    await until(lambda: len(site.did("r0#1")) == 2, "it was claimed anew, and its activity began anew")
    site.open("go")
    for run in runs:
        assert await run.result(timeout=30) == 3
    assert site.tokens("r0") == {3}
    assert site.tokens("r1") == {1}
    assert worker.said("ready") == [name]
    assert worker.said("reborn") == []
    site.check()


# What a takeover does to a run.
_TAKE_AWAY = """
update continuum.runs set lease_owner = null, lease_token = lease_token + 1, next_wakeup_at = now()
where run_id = %s returning 1"""
