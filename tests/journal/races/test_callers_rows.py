"""A caller's open transaction that holds rows of runs (10): it delays those runs, and nobody else."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import psycopg
import pytest

from continuum._core.effects import Cancellation
from continuum._journal.commit import Commit, Committed, Complete, Fenced, Passivate
from continuum._journal.outside import cancelling_here, sending, starting, take
from tests.journal.races.sides import SCHEMA, Session, child, entry, message, root, session, turn, working
from tests.journal.races.stepper import before_deadline
from tests.length import at_length


@pytest.fixture
def caller(raced: str) -> Iterator[psycopg.Connection]:
    """A caller's own sync connection, in a transaction as soon as it is used."""
    with psycopg.connect(raced) as connection:
        yield connection


@pytest.mark.parametrize("end", ["commit", "rollback"])
async def test_a_cancel_in_a_callers_transaction_delays_its_run_alone(
    raced: str, db: Session, caller: psycopg.Connection, end: str
) -> None:
    async with working(raced, "w") as (worker,):
        for number in range(20):
            await db.put(f"r{number:02}", "w")
        take(caller, cancelling_here(SCHEMA, "r07", "by hand"))
        stop = worker.stepper.stop_at("flush.begin")
        batch = {f"r{number:02}": worker.journal.submit(turn(f"r{number:02}", keys=["a"])) for number in range(20)}
        await stop.reached()
        stop.let_go()
        held = batch.pop("r07")
        for run_id, future in batch.items():
            assert isinstance((await before_deadline(future, run_id, 5))[0], Committed)
        for run_id in batch:  # what comes after does not wait either
            (outcome,) = await before_deadline(worker.journal.commit(turn(run_id, 1, 2, ["b"])), run_id, 5)
            assert isinstance(outcome, Committed)
        assert not held.done()
        caller.commit() if end == "commit" else caller.rollback()
        (outcome,) = await before_deadline(held, "the held run")
        assert isinstance(outcome, Fenced if end == "commit" else Committed)
        assert await db.journal_of("r07") == ([] if end == "commit" else ["a"])
        assert await db.state("r07") == ("cancelled" if end == "commit" else "running")


@at_length
async def test_several_callers_hold_several_runs_and_each_is_written_when_it_is_free(
    raced: str, db: Session
) -> None:
    async with working(raced, "w") as (worker,), session(raced) as first, session(raced) as second:
        for run_id in "abcd":
            await db.put(run_id, "w")
        for caller, run_id in ((first, "b"), (second, "c")):
            await caller.begin()
            await caller.hold(run_id)
        pending = {run_id: worker.journal.submit(turn(run_id, keys=["x"])) for run_id in "abcd"}
        for run_id in "ad":
            await before_deadline(pending[run_id], run_id, 5)
        await second.roll_back()
        assert isinstance((await before_deadline(pending["c"], "c", 5))[0], Committed)
        assert not pending["b"].done()
        await first.commit()
        assert isinstance((await before_deadline(pending["b"], "b", 5))[0], Committed)


@at_length
async def test_a_group_of_which_one_run_is_held_waits_whole(raced: str, db: Session) -> None:
    async with working(raced, "w") as (worker,), session(raced) as caller:
        for run_id in ("r", "r/c", "other"):
            await db.put(run_id, "w")
        await caller.begin()
        await caller.hold("r/c")
        pair = worker.journal.submit(turn("r", keys=["c"]), turn("r/c", status=Complete(b"1")))
        assert isinstance((await worker.journal.commit(turn("other", keys=["a"])))[0], Committed)
        assert await db.journal_of("r") == []
        await caller.roll_back()
        outcomes = await before_deadline(pair, "the group")
        assert [type(outcome) for outcome in outcomes] == [Committed, Committed]


@at_length
async def test_a_large_commit_that_is_held_lets_others_pass(raced: str, db: Session) -> None:
    async with working(raced, "w") as (worker,), session(raced) as caller:
        for run_id in ("held", "free", "held/c", "free/c"):
            await db.put(run_id, "w")
        await caller.begin()
        await caller.hold("held")
        held = worker.journal.submit(turn("held", cancels=(Cancellation("held/c", ""),)))
        free = worker.journal.submit(turn("free", cancels=(Cancellation("free/c", ""),)))
        assert isinstance((await before_deadline(free, "the free one", 10))[0], Committed)
        assert isinstance((await worker.journal.cancel("free", "")).runs, int)
        assert not held.done()
        await caller.roll_back()
        assert isinstance((await before_deadline(held, "the held one", 10))[0], Committed)
        assert await db.state("held/c") == "cancelled"


async def test_a_cascade_that_meets_a_held_run_is_done_when_it_is_free(raced: str, db: Session) -> None:
    async with working(raced, "w") as (worker,), session(raced) as caller:
        for run_id in ("r", "r/c", "other"):
            await db.put(run_id, "w")
        await caller.begin()
        await caller.hold("r/c")
        cancel = asyncio.ensure_future(worker.journal.cancel("r", ""))
        await caller.blocks()
        assert isinstance((await worker.journal.commit(turn("other", keys=["a"])))[0], Committed)
        await caller.roll_back()
        assert (await before_deadline(cancel, "the cascade")).runs == 2


async def test_a_poke_of_a_held_run_arrives_after_the_rollback(
    raced: str, db: Session, caller: psycopg.Connection
) -> None:
    async with working(raced, "w") as (worker,):
        await db.put("from", "w")
        await db.put("to")
        await db.put("beside")
        take(caller, cancelling_here(SCHEMA, "to", ""))
        await worker.journal.commit(turn("from", messages=(message("to", "m"), message("beside", "m"))))
        await db.until_due("beside")
        assert not await db.is_due("to")
        caller.rollback()
        await db.until_due("to")


async def test_what_a_caller_rolls_back_leaves_nothing_and_what_it_commits_is_told(
    raced: str, db: Session, caller: psycopg.Connection
) -> None:
    async with working(raced, "w") as (worker,):
        await db.put("to")
        await worker.listen()
        for end in (caller.rollback, caller.commit):
            take(caller, starting(SCHEMA, [root("new")]))
            take(caller, sending(SCHEMA, [message("to", "m"), message("new", "m")]))
            assert not await db.is_due("to")
            assert await worker.journal.claim([("flow", 1)], 10) == []
            end()
        await db.until_due("to")  # whoever hears of mail arms the run
        assert {run.run_id for run in await worker.journal.claim([("flow", 1)], 10)} == {"to", "new"}
        assert await db.inbox_of("to") == ["m"]


@at_length
async def test_a_child_id_that_a_caller_is_inserting_delays_one_commit_alone(raced: str, db: Session) -> None:
    async with working(raced, "w") as (worker,), session(raced) as caller:
        for run_id in ("r", "s", "t"):
            await db.put(run_id, "w")
        await caller.begin()
        await caller.put("r/c")
        stop = worker.stepper.stop_at("flush.begin")
        held = worker.journal.submit(turn("r", children=(child("r/c"),)))
        free = [worker.journal.submit(Commit(run_id, 1, 1, 1, (entry("a"),))) for run_id in ("s", "t")]
        await stop.reached()
        stop.let_go()
        for future in free:
            assert isinstance((await before_deadline(future, "a neighbour", 8))[0], Committed)
        await caller.commit()
        (outcome,) = await before_deadline(held, "the held commit", 8)
        assert isinstance(outcome, Committed)
        assert outcome.existed == ("r/c",)


async def test_a_passivation_that_was_held_wakes_for_mail_that_came_meanwhile(raced: str, db: Session) -> None:
    async with working(raced, "w", "s") as (worker, sender), session(raced) as caller:
        await db.put("r", "w")
        await db.put("from", "s")
        await caller.begin()
        await caller.hold("r")
        held = worker.journal.submit(turn("r", status=Passivate()))
        await caller.blocks()
        await sender.journal.commit(turn("from", messages=(message("r", "m"),)))
        await caller.roll_back()
        await before_deadline(held, "the held passivation")
        await db.until_due("r")
