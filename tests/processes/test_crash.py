"""Workers that die at a named point or at any moment: what the journals say afterwards, what was done twice."""

from __future__ import annotations

import pytest

from tests.processes import flows, parents
from tests.processes.harness import LONG, Site, WorkerProcess, until

EXACT = [("activity_completed", "step-1"), ("timer_fired", "timer-1"), ("activity_completed", "step-2")]


@pytest.mark.parametrize("passivate_after", [0.01, 5] if LONG else [0.01])
async def test_killed_between_activity_and_timer_the_history_is_exact(site: Site, passivate_after: float) -> None:
    """CR01 kill between an activity and a timer: exact history, right result. CR07 due timers after downtime."""
    dying = site.worker(passivate_after=passivate_after)
    await dying.ready()
    run = await site.start(flows.paced, "r", pause_s=0.7)
    await until(lambda: site.entries("r") == EXACT[:1], "the first activity is journaled")
    await dying.die()
    heir = site.worker()
    assert await run.result(timeout=30) == ["r#0", "r#1"]
    assert site.entries("r") == EXACT
    assert site.did("r#0") == [dying.pid]
    assert site.did("r#1") == [heir.pid]
    site.check()


# Where a worker dies after the parent's first step, so that the turn that starts all children is on its way.
BEFORE_THE_COMMIT = ("activity.ended", "turn.taken", "flush.begin")
AFTER_THE_COMMIT = ("flush.committed", "turn.committed")


async def test_a_parents_death_around_the_flush_starts_no_child_twice(site: Site) -> None:
    """CH32 a parent crash between start and flush starts no child twice. CR02 a commit survives its writer."""
    dying = {
        point: site.worker(
            f"tests.processes.parents:family_{number}", crashes=[{"point": point, "seen": f"p{number}#0"}]
        )
        for number, point in enumerate((*BEFORE_THE_COMMIT, *AFTER_THE_COMMIT))
    }
    heir = site.worker(gate="heir")
    for worker in dying.values():
        await worker.ready()
    runs = {}
    for number, point in enumerate(dying):
        runs[point] = await site.start(parents.COPIES[number], f"p{number}", children=5, steps=2)
    for point, worker in dying.items():
        assert await worker.ended() == -9, f"it reaches {point}"
    for number, point in enumerate(dying):
        (count,) = site.sql("select count(*) from continuum.runs where run_id like %s", f"p{number}/%")[0]
        assert count == (0 if point in BEFORE_THE_COMMIT else 5), point
    site.open("heir")
    for number, point in enumerate(dying):
        assert await runs[point].result(timeout=30) == 10, point
        kinds = [kind for kind, _ in site.entries(f"p{number}")]
        assert kinds.count("child_started") == kinds.count("child_completed") == 5, point
        doers = site.did(f"p{number}#0")
        assert len(doers) == (2 if point in BEFORE_THE_COMMIT else 1), point
        assert set(doers[1:]) <= {heir.pid}
    assert site.one("select count(*) from continuum.runs") == 6 * len(dying)
    site.check()


SHORT = ("claim.committed", "activity.begin", "flush.committed", "poke.begin")
POINTS = (
    *SHORT,
    *(
        (
            "claim.begin",
            "claim.adopted",
            "turn.begin",
            "turn.taken",
            "turn.committed",
            "activity.ended",
            "flush.begin",
            "poke.committed",
        )
        if LONG
        else ()
    ),
)


async def test_wherever_workers_die_nothing_is_lost_or_doubled(site: Site) -> None:
    """CR10 worker death mid-activity finishes elsewhere. CR03 the same for timers and generations."""
    dying = [
        site.worker(crashes=[{"point": point, "after": 3 + number}], passivate_after=0.2)
        for number, point in enumerate(POINTS)
    ]
    runs = []
    for number in range(3):
        runs.append(await site.start(parents.family, f"f{number}", children=6, steps=3))
        runs.append(await site.start(flows.chain, f"g{number}", steps=6))
        runs.append(await site.start(flows.paced, f"t{number}", pause_s=0.1))
    fed = 0
    while not _all_dead(dying):  # some points are passed only by new runs
        fed += 1
        runs.append(await site.start(parents.family, f"more{fed}", children=3, steps=2))
        await until(lambda: _all_dead(dying) or _unfinished(site) < 20, "workers die or work is done")
    heir = site.worker()
    for run in runs:
        await run.result(timeout=60)
    assert heir.code is None
    site.check()


def _all_dead(workers: list[WorkerProcess]) -> bool:
    return all(worker.code is not None for worker in workers)


def _unfinished(site: Site) -> int:
    return int(site.one("select count(*) from continuum.runs where state <> 'completed'"))


@pytest.mark.skipif(not LONG, reason="at length: CONTINUUM_LONG=1")
async def test_repeated_kills_park_nobody(site: Site) -> None:
    """CR21 repeated kills of a worker park no innocent run: it is charged, comes through, and gets on."""
    run = await site.start(flows.held_twice, "r", gate="go")
    working, next_one = site.worker(), site.worker()
    named = "select count(*) from continuum.workers where suspect_run_id = 'r' and dead_at is null"
    for step, kill_while_named in ((0, False), (0, True), (0, False), (1, True), (1, True)):
        label = f"r#{step}"
        working, next_one = await _who(site, label, working, next_one)
        await until(lambda: bool(site.one(named)) == kill_while_named, "it is watched, or that is over")
        if step == 0 and len(site.did("r#0")) == 3:
            site.open("go0")  # it has come through its try alone, and now it gets on
            await until(lambda: site.did("r#1"), "it gets on")
            await until(lambda: site.one("select deaths from continuum.runs") == 0, "it is forgiven")
        await working.die()
        working, next_one = next_one, site.worker()
    await until(lambda: len(site.did("r#1")) == 4 or site.one("select state from continuum.runs") == "parked")
    assert site.one("select state from continuum.runs") == "running"
    site.open("go1")
    assert await run.result(timeout=30) == 2
    site.check()


async def _who(
    site: Site, label: str, one: WorkerProcess, other: WorkerProcess
) -> tuple[WorkerProcess, WorkerProcess]:
    """Wait until one of two workers is in an activity, and return that one first."""
    pid = await until(lambda: {one.pid, other.pid} & set(site.did(label)[-1:]), "one of them has the run")
    return (one, other) if one.pid in pid else (other, one)
