"""Races for a run: a stale writer against a takeover (1), two claimers (8), slow claims (17)."""

from __future__ import annotations

import asyncio

from continuum._journal.commit import Committed, Complete, Fenced, Lease, Passivate
from tests.journal.races.sides import FLOW, Session, child, message, session, turn, working
from tests.journal.races.stepper import before_deadline


async def test_a_writer_whose_run_was_taken_over_before_its_flush_writes_nothing(raced: str, db: Session) -> None:
    async with working(raced, "stale", "other") as (stale, other):
        await db.put("r", "stale")
        await db.put("neighbour", "stale")
        await db.put("to", "other")
        stop = stale.stepper.stop_at("flush.begin")
        late = stale.journal.submit(
            turn("r", keys=["a"], children=(child("r/c"),), messages=(message("to", "m"),), status=Complete(b"1"))
        )
        beside = stale.journal.submit(turn("neighbour", keys=["b"]))
        await stop.reached()
        await db.rows("update continuum.workers set dead_at = now() where worker_id = 'stale'")
        assert (await other.journal.take_over()).released == 2
        sql = """update continuum.runs set lease_owner = 'stale', lease_token = 1, state = 'running'
                 where run_id = 'neighbour'"""  # a run that it did not lose
        await db.rows(sql)
        (claimed,) = await other.journal.claim([FLOW], 1)
        assert (claimed.run_id, claimed.token, claimed.suspected) == ("r", 3, True)
        stop.let_go()
        assert await late == (Fenced(),)
        assert isinstance((await beside)[0], Committed)
        assert await db.journal_of("r") == await db.inbox_of("to") == []
        assert await db.live_below("r") == 1
        assert isinstance((await other.journal.commit(turn("r", 3, keys=["theirs"])))[0], Committed)
        assert await db.journal_of("r") == ["theirs"]


async def test_a_flush_that_came_first_stands_and_the_takeover_finds_it(raced: str, db: Session) -> None:
    async with working(raced, "other") as (other,), session(raced) as stale:
        await db.put("r", "gone")
        await stale.begin()
        result = await stale.flush("gone", turn("r", keys=["a"]))
        assert not result.fenced
        assert (await other.journal.take_over()).released == 0  # the row is in use: skipped, not waited for
        await stale.commit()
        assert (await other.journal.take_over()).released == 1
        run = await other.claim_one()
        (loaded,) = await other.journal.load([run])
        assert [found.key for found in loaded.entries] == ["a"]


async def test_a_flush_that_waits_for_a_takeover_is_fenced_by_it(raced: str, db: Session) -> None:
    async with working(raced, "stale") as (stale,), session(raced) as taker:
        await db.put("r", "stale")
        await db.rows("update continuum.workers set dead_at = now() where worker_id = 'stale'")
        await taker.begin()
        ((released, *_),) = await taker.run("take_over", worker=None, limit=10, charges=3, error=None)
        assert released == 1
        late = stale.journal.submit(turn("r", keys=["a"], status=Passivate()))
        await taker.blocks()
        await taker.commit()
        assert await before_deadline(late, "the flush") == (Fenced(),)
        assert await db.journal_of("r") == []
        assert await db.is_due("r")


async def test_a_flush_goes_on_if_the_takeover_it_waits_for_is_rolled_back(raced: str, db: Session) -> None:
    async with working(raced, "w") as (worker,), session(raced) as taker:
        await db.put("r", "w")
        await taker.begin()
        await taker.rows("update continuum.runs set lease_owner = null, lease_token = 2 where run_id = 'r'")
        pending = worker.journal.submit(turn("r", keys=["a"]))
        await taker.blocks()
        await taker.roll_back()
        assert isinstance((await pending)[0], Committed)
        assert await db.journal_of("r") == ["a"]


async def test_a_released_run_is_not_written_under_the_old_lease(raced: str, db: Session) -> None:
    async with working(raced, "a", "b") as (first, second):
        await db.put("r", "a")
        stop = first.stepper.stop_at("flush.begin")
        late = first.journal.submit(turn("r", keys=["a"]))
        await stop.reached()
        assert await first.journal.release([Lease("r", 1)]) == {"r"}
        assert (await second.claim_one()).token == 2
        stop.let_go()
        assert await late == (Fenced(),)


async def test_a_run_that_comes_back_to_its_worker_is_fenced_by_the_token_alone(raced: str, db: Session) -> None:
    async with working(raced, "a") as (worker,):
        await db.put("r", "a")
        stop = worker.stepper.stop_at("flush.begin")
        late = worker.journal.submit(turn("r", keys=["old"]))
        await stop.reached()
        await worker.journal.release([Lease("r", 1)])
        assert (await worker.claim_one()).token == 2
        stop.let_go()
        assert await late == (Fenced(),)


async def test_two_claimers_never_get_one_run(raced: str, db: Session) -> None:
    async with working(raced, "a", "b") as (first, second):
        for number in range(20):
            await db.put(f"r{number:02}", due=True)
        stops = [worker.stepper.stop_at("claim.begin") for worker in (first, second)]
        claims = [asyncio.ensure_future(worker.journal.claim([FLOW], 12)) for worker in (first, second)]
        for stop in stops:
            await stop.reached()
        for stop in stops:
            stop.let_go()
        found = [run.run_id for claim in claims for run in await before_deadline(claim, "a claim")]
        assert len(found) == len(set(found))
        rest = await first.journal.claim([FLOW], 20)
        assert sorted(found + [run.run_id for run in rest]) == [f"r{number:02}" for number in range(20)]


async def test_a_second_claimer_passes_by_what_a_slow_claim_holds(raced: str, db: Session) -> None:
    async with working(raced, "fast") as (fast,), session(raced) as slow:
        await slow.run("register", worker="slow", lease_s=60, info=None)
        await db.put("r1", due=True)
        await db.put("r2", due=True)
        await slow.begin()
        (mine,) = await slow.run("claim", worker="slow", workflows=["flow"], versions=[1], limit=1)
        (theirs,) = await before_deadline(fast.journal.claim([FLOW], 10), "the second claim")
        assert {mine[0], theirs.run_id} == {"r1", "r2"}
        await slow.roll_back()
        (again,) = await fast.journal.claim([FLOW], 10)
        assert again.run_id == mine[0]
        assert again.token == mine[1]  # a claim that was rolled back used no token


async def test_a_worker_declared_dead_claims_nothing(raced: str, db: Session) -> None:
    async with working(raced, "dead") as (dead,):
        await db.put("r", due=True)
        stop = dead.stepper.stop_at("claim.begin")
        claim = asyncio.ensure_future(dead.journal.claim([FLOW], 1))
        await stop.reached()
        await db.rows("update continuum.workers set dead_at = now() where worker_id = 'dead'")
        stop.let_go()
        assert await claim == []


async def test_a_claim_that_commits_after_its_worker_was_declared_dead_is_undone(raced: str, db: Session) -> None:
    async with working(raced, "other") as (other,), session(raced) as slow:
        await slow.run("register", worker="slow", lease_s=60, info=None)
        await db.put("r", due=True)
        await slow.begin()
        (mine,) = await slow.run("claim", worker="slow", workflows=["flow"], versions=[1], limit=1)
        await db.rows("update continuum.workers set dead_at = now() where worker_id = 'slow'")
        assert (await other.journal.take_over()).released == 0
        await slow.commit()
        assert (await other.journal.take_over()).released == 1
        assert (await other.claim_one()).token == mine[1] + 2
