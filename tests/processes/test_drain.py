"""Workers that are told to stop."""

from __future__ import annotations

from tests.length import at_length
from tests.processes import flows, parents
from tests.processes.harness import LONG, Site, until


async def test_a_worker_that_is_told_to_stop_hands_over(site: Site) -> None:
    """LF16 drain stops claims first, gives running activities their time, hands over, and exits with 0."""
    leaving = site.worker(drain=30)
    await leaving.ready()
    held = await site.start(flows.held, "held", gate="go", steps=4)
    asleep = [await site.start(flows.paced, f"t{number}", pause_s=3600) for number in range(5)]
    await until(
        lambda: site.did("held#1") and all(site.did(f"t{number}#0") for number in range(5)), "all are under way"
    )
    leaving.terminate()
    await until(lambda: leaving.said("draining"), "it drains")
    leased = "select array_agg(run_id order by run_id) from continuum.runs where lease_owner is not null"
    await until(lambda: site.one(leased) == ["held"], "what only waits is handed over at once")
    later = await site.start(flows.leaf, "later")
    leaving.terminate()  # once more changes nothing
    heir = site.worker()
    assert await later.result(timeout=30) == 3, "the other worker has it"
    assert leaving.code is None
    assert site.one(leased) == ["held"]
    site.open("go")
    assert await leaving.ended() == 0
    assert await held.result(timeout=30) == 4
    assert site.did("held#1") == [leaving.pid], "its activity got its time"
    assert set(site.did("held#2") + site.did("later#0")) == {heir.pid}
    assert site.declared_dead() == 0
    assert len(site.alive()) == 1
    for run in asleep:
        assert (await run.describe()).state == "suspended"
    site.check(open_runs=5)


@at_length
async def test_a_drain_is_bounded(site: Site) -> None:
    """LF16 a drain is bounded: an activity that does not end is left, and its run given back."""
    leaving = site.worker(drain=0.3)
    await leaving.ready()
    run = await site.start(flows.held, "r", gate="go")
    await until(lambda: site.did("r#1"), "it is in its activity")
    leaving.terminate()
    assert await leaving.ended() == 0
    assert site.one("select count(*) from continuum.runs where lease_owner is not null") == 0
    assert site.one("select count(*) from continuum.workers where dead_at is null") == 0
    site.open("go")
    heir = site.worker()
    assert await run.result(timeout=30) == 3
    assert site.did("r#1") == [leaving.pid, heir.pid]
    assert site.one("select bool_or(suspected) from continuum.runs") is False
    site.check()


@at_length
async def test_rolling_restarts_under_load_do_nothing_twice(site: Site) -> None:
    """LF16 drain hands over at once: workers come and go, and every activity is done once."""
    worker = site.worker(lease=5)
    runs = []
    for number in range(3 if LONG else 2):
        following = site.worker(lease=5)
        await following.ready()
        for more in range(2):
            run = f"f{number}x{more}"
            runs.append(await site.start(parents.family, run, children=5, steps=20, pause_s=0.02))
            await until(lambda: any(line.label.startswith(f"{run}/") for line in site.ledger()), "work goes on")
        worker.terminate()
        assert await worker.ended() == 0
        worker = following
    for one in runs:
        assert await one.result(timeout=30) == 100
    labels = [line.label for line in site.ledger()]
    assert len(labels) == len(set(labels))
    assert site.declared_dead() == 0
    site.check()
