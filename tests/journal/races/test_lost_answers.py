"""A commit whose answer is lost (11): nothing is sent twice, and what is read after ``reclaim`` is final."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from continuum._core.effects import Cancellation
from continuum._journal import flusher
from continuum._journal.commit import Claimed, Committed, Complete, Lease, Outcome, Passivate, Unknown
from continuum._journal.journal import PostgresJournal
from continuum.errors import DatabaseUnreachable
from tests.journal.proxy import Fault, Proxy, proxied
from tests.journal.races.sides import Session, child, message, session, turn
from tests.journal.races.stepper import Stepper, before_deadline
from tests.until import until


@asynccontextmanager
async def behind(url: str) -> AsyncIterator[tuple[PostgresJournal, Proxy, Stepper]]:
    """A worker "w" whose connections a test can break; they are warm, so that a fault strikes what it should."""
    stepper = Stepper()
    async with proxied(url) as proxy, PostgresJournal(proxy.url, hooks=stepper).open(migrating=False) as journal:
        await journal.register("w", 60, {})
        await journal.commit(turn("nobody"))
        yield journal, proxy, stepper


async def _read_again(journal: PostgresJournal, run_id: str, token: int = 1) -> tuple[Claimed, list[str]]:
    async def ours() -> list[Claimed]:
        return await journal.reclaim([Lease(run_id, token)])  # it leaves out what somebody holds

    (run,) = await before_deadline(until(ours), "reclaim")
    (loaded,) = await journal.load([run])
    assert loaded.problem is None
    return run, [found.key for found in loaded.entries]


def _strike(proxy: Proxy, fault: str, lane: str) -> Fault:
    strike = {"answer": proxy.lose_answer, "statement": proxy.lose_statement, "client": proxy.lose_client}
    return strike[fault](lane)


@pytest.mark.parametrize("fault", ["answer", "statement"])
async def test_a_commit_without_an_answer_is_unknown_and_is_not_sent_again(
    raced: str, db: Session, fault: str
) -> None:
    await db.put("r", "w")
    await db.put("to", "x")
    async with behind(raced) as (journal, proxy, stepper):
        sent = stepper.visits["flush.begin"]
        struck = _strike(proxy, fault, "flush")
        commit = turn("r", keys=["a"], messages=(message("to", "m"),), children=(child("r/c"),))
        assert await journal.commit(commit) == (Unknown(),)
        assert struck.struck.is_set()
        written = ["a"] if fault == "answer" else []
        run, keys = await _read_again(journal, "r")
        assert (run.token, keys) == (2, written)
        (outcome,) = await journal.commit(turn("r", 2, 1 + len(keys), keys=["b"]))
        assert isinstance(outcome, Committed)
        assert stepper.visits["flush.begin"] == sent + 2
        assert await db.journal_of("r") == [*written, "b"]
        assert await db.inbox_of("to") == ["m"] * len(written)
        assert await db.live_below("r") == 1 + len(written)


async def test_every_commit_of_a_batch_without_an_answer_is_unknown(raced: str, db: Session) -> None:
    for number in range(50):
        await db.put(f"r{number:02}", "w")
    async with behind(raced) as (journal, proxy, stepper):
        stop = stepper.stop_at("flush.begin")
        batch = [journal.submit(turn(f"r{number:02}", keys=["a"])) for number in range(50)]
        await stop.reached()
        proxy.lose_answer("flush")
        stop.let_go()
        outcomes = [(await before_deadline(future, "a commit"))[0] for future in batch]
        assert set(outcomes) == {Unknown()}
        leases = [Lease(f"r{number:02}", 1) for number in range(50)]
        runs = await journal.reclaim(leases)
        for loaded in await journal.load(runs):
            assert [found.key for found in loaded.entries] == ["a"]


@pytest.mark.parametrize("first", ["the old write", "reclaim"])
async def test_a_run_with_a_write_without_a_client_is_reclaimed_after_it(
    raced: str, db: Session, first: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The statement waits for a lock while its client goes away; Postgres does not notice and carries it out."""
    monkeypatch.setattr(flusher, "PATIENT", "60s")  # on a busy machine it might give up before the lock is free
    await db.put("r", "w")
    async with behind(raced) as (journal, proxy, _), session(raced) as holding:
        await holding.begin()
        await holding.hold("r")
        struck = proxy.lose_client("flush")
        late = journal.submit(turn("r", keys=["late"]))
        await struck.struck.wait()
        if first == "the old write":
            await holding.blocks()
        assert await before_deadline(late, "the answer") == (Unknown(),)
        assert await before_deadline(journal.reclaim([Lease("r", 1)]), "reclaim") == []
        await holding.commit()
        run, keys = await _read_again(journal, "r")
        assert run.token == 2
        await journal.commit(turn("r", 2, 1 + len(keys), keys=["b"]))
        assert await db.journal_of("r") == [*keys, "b"]  # nothing came in after it was read
        assert keys in ([], ["late"])  # of the two who wait either may have the lock first


async def test_a_write_that_comes_to_its_lock_after_reclaim_is_fenced(raced: str, db: Session) -> None:
    """The other order: reclaim holds the row, and the write, which has lost its client, waits."""
    await db.put("r", "w")
    async with behind(raced) as (journal, proxy, _), session(raced) as reclaiming:
        await reclaiming.begin()
        (row,) = await reclaiming.run("reclaim", worker="w", run_ids=["r"], tokens=[1])
        struck = proxy.lose_client("flush")
        late = journal.submit(turn("r", keys=["late"]))
        await struck.struck.wait()
        assert await before_deadline(late, "the answer") == (Unknown(),)
        await reclaiming.blocks()
        await reclaiming.commit()
        (outcome,) = await journal.commit(turn("r", row[1], keys=["b"]))
        assert isinstance(outcome, Committed)
        assert await db.journal_of("r") == ["b"]


@pytest.mark.parametrize("status", ["passivated", "ended"])
async def test_a_run_that_the_lost_commit_let_go_is_not_reclaimed(raced: str, db: Session, status: str) -> None:
    await db.put("r", "w")
    async with behind(raced) as (journal, proxy, _):
        proxy.lose_answer("flush")
        let_go = Passivate() if status == "passivated" else Complete(b"1")
        assert await journal.commit(turn("r", keys=["a"], status=let_go)) == (Unknown(),)
        assert await journal.reclaim([Lease("r", 1)]) == []
        assert await db.journal_of("r") == ["a"]


@pytest.mark.parametrize("lane", ["flush", "large"])
async def test_the_mail_of_a_lost_commit_is_armed_all_the_same(raced: str, db: Session, lane: str) -> None:
    """Whether it is there nobody knows: whoever was written to is poked, and that looks."""
    await db.put("r", "w")
    await db.put("to")
    await db.put("r/c", "x")
    async with behind(raced) as (journal, proxy, stepper):
        cancels = (Cancellation("r/c", ""),) if lane == "large" else ()
        stop = stepper.stop_at("large.written" if lane == "large" else "flush.begin")
        pending = journal.submit(turn("r", messages=(message("to", "m"),), cancels=cancels))
        await stop.reached()
        proxy.lose_answer(lane)
        stop.let_go()
        assert await before_deadline(pending, "the commit") == (Unknown(),)
        await db.until_due("to")


async def test_what_a_lost_commit_let_go_is_armed_for_mail_that_came_before(raced: str, db: Session) -> None:
    await db.put("r", "w")
    async with behind(raced) as (journal, proxy, _):
        await db.rows("insert into continuum.inbox (run_id, type, key) values ('r', 'signal_received', 'm')")
        proxy.lose_answer("flush")
        assert await journal.commit(turn("r", status=Passivate())) == (Unknown(),)
        await db.until_due("r")


async def test_receivers_of_what_closing_leaves_open_are_armed(raced: str, db: Session) -> None:
    """Postgres carries out what it has got, though the journal closes before it hears of it."""
    await db.put("r", "w")
    await db.put("to")
    stepper = Stepper()
    async with PostgresJournal(raced, hooks=stepper).open(migrating=False) as journal:
        await journal.register("w", 60, {})
        stop = stepper.stop_at("flush.committed")
        pending = journal.submit(turn("r", messages=(message("to", "m"),)))
        await stop.reached()
    assert await before_deadline(pending, "the commit") == (Unknown(),)
    assert await db.is_due("to")


async def test_the_mail_of_a_lost_commit_whose_worker_dies_is_found_by_the_sweep(raced: str, db: Session) -> None:
    """Nobody pokes: who would have, is gone."""
    await db.put("r", "w")
    await db.put("to")
    async with behind(raced) as (journal, proxy, stepper):
        stepper.never_pass("poke.begin")
        proxy.lose_answer("flush")
        assert await journal.commit(turn("r", messages=(message("to", "m"),))) == (Unknown(),)
        assert not await db.is_due("to")
        swept = await journal.sweep(every_s=0)
        assert swept is not None
        assert swept.armed == 1
        assert await db.is_due("to")
        journal._hints._some.clear()  # the dead say nothing when they close


async def test_children_that_a_lost_commit_claimed_are_among_the_leases(raced: str, db: Session) -> None:
    await db.put("r", "w")
    async with behind(raced) as (journal, proxy, _):
        proxy.lose_answer("flush")
        commit = turn("r", children=(child("r/c"), child("r/d")), claimed=2)
        assert await journal.commit(commit) == (Unknown(),)
        leases = sorted(await journal.leases(), key=lambda lease: lease.run_id)
        assert leases == [Lease("r", 1), Lease("r/c", 1), Lease("r/d", 1)]
        assert await journal.release(leases[1:]) == {"r/c", "r/d"}
        assert await db.is_due("r/c")


@pytest.mark.parametrize("fault", ["answer", "statement"])
async def test_a_large_commit_without_an_answer_is_unknown(raced: str, db: Session, fault: str) -> None:
    await db.put("r", "w")
    await db.put("r/c", "x")
    async with behind(raced) as (journal, proxy, stepper):
        stop = stepper.stop_at("large.written")  # only "commit" is left
        pending = journal.submit(turn("r", keys=["a"], cancels=(Cancellation("r/c", ""),)))
        await stop.reached()
        _strike(proxy, fault, "large")
        stop.let_go()
        assert await before_deadline(pending, "the commit") == (Unknown(),)
        run, keys = await _read_again(journal, "r")
        assert keys == (["a"] if fault == "answer" else [])
        assert await db.state("r/c") == ("cancelled" if fault == "answer" else "running")
        again: tuple[Outcome, ...] = await before_deadline(
            journal.commit(turn("r", run.token, 1 + len(keys), keys=["b"], cancels=(Cancellation("r/c", ""),))),
            "the next commit",
        )
        assert isinstance(again[0], Committed)


async def test_a_claim_whose_answer_is_lost_is_among_the_workers_leases(raced: str, db: Session) -> None:
    await db.put("r", due=True)
    async with behind(raced) as (journal, proxy, _):
        struck = proxy.lose_answer("journal")
        with pytest.raises(DatabaseUnreachable):
            await journal.claim([("flow", 1)], 1)
        assert struck.struck.is_set()
        (lease,) = await journal.leases()
        assert await journal.release([lease]) == {"r"}


async def test_a_stalled_flush_holds_up_no_heartbeat_and_no_claim(raced: str, db: Session) -> None:
    await db.put("r", "w")
    await db.put("due", due=True)
    async with behind(raced) as (journal, proxy, _):
        stalled = proxy.stall("flush")
        pending = journal.submit(turn("r", keys=["a"]))
        await stalled.struck.wait()
        assert (await before_deadline(journal.beat(), "the heartbeat")).alive
        assert len(await before_deadline(journal.claim([("flow", 1)], 1), "the claim")) == 1
        assert not pending.done()
        stalled.go_on()
        assert isinstance((await before_deadline(pending, "the flush"))[0], Committed)


async def test_commits_handed_in_while_there_is_no_connection_are_written_when_there_is(
    raced: str, db: Session
) -> None:
    await db.put("r", "w")
    await db.put("s", "w")
    async with behind(raced) as (journal, proxy, stepper):
        stop = stepper.stop_at("flush.begin")
        first = journal.submit(turn("r", keys=["a"]))
        await stop.reached()
        proxy.cut_all()
        second: asyncio.Future[tuple[Outcome, ...]] = journal.submit(turn("s", keys=["b"]))
        stop.let_go()
        (outcome,) = await before_deadline(first, "the first commit")
        assert isinstance(outcome, (Committed, Unknown))  # Unknown if the break was noticed only while sending
        assert isinstance((await before_deadline(second, "the second commit"))[0], Committed)
        assert await db.journal_of("s") == ["b"]
        assert await db.journal_of("r") == (["a"] if isinstance(outcome, Committed) else [])
