"""A cascade against a flush (2), and a child's end against its parent's cancel, close and next generation (5)."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from continuum._core.effects import Cancellation
from continuum._journal.commit import (
    Committed,
    Complete,
    Continue,
    Fail,
    Fenced,
    NewTask,
    Passivate,
    Status,
)
from tests.journal.races.sides import Session, child, entry, message, session, turn, working
from tests.journal.races.stepper import before_deadline


async def test_a_flush_that_waits_for_a_cascade_writes_no_entry(raced: str, db: Session) -> None:
    async with working(raced, "w", "x") as (worker, canceller):
        await db.put("r", "w")
        stop = canceller.stepper.stop_at("cancel.root")
        cancel = asyncio.ensure_future(canceller.journal.cancel("r", "why"))
        await stop.reached()
        late = worker.journal.submit(turn("r", keys=["late"], children=(child("r/c"),)))
        await db.waits("continuum flush")
        stop.let_go()
        assert (await before_deadline(cancel, "the cascade")).runs == 1
        assert await late == (Fenced(),)
        assert await db.journal_of("r") == []
        assert await db.live_below("r") == 0
    assert await db.deadlocks() == 0


async def test_a_child_started_while_the_cascade_waits_does_not_escape(raced: str, db: Session) -> None:
    async with working(raced, "x") as (canceller,), session(raced) as writer:
        await db.put("r", "w")
        await writer.begin()
        await writer.flush("w", turn("r", keys=["s"], children=(child("r/c"), child("r/d")), claimed=1))
        cancel = asyncio.ensure_future(canceller.journal.cancel("r", ""))
        await writer.blocks()
        await writer.commit()
        assert (await before_deadline(cancel, "the cascade")).runs == 3
        assert await db.journal_of("r") == ["s"]
        assert await db.live_below("r") == 0


async def test_a_grandchild_started_while_its_level_is_waited_for_does_not_escape(raced: str, db: Session) -> None:
    async with working(raced, "x") as (canceller,), session(raced) as writer:
        await db.put("r", "w")
        await db.put("r/c", "w")
        await writer.begin()
        await writer.flush("w", turn("r/c", keys=["s"], children=(child("r/c/g"),), status=Complete(b"1")))
        cancel = asyncio.ensure_future(canceller.journal.cancel("r", ""))
        await writer.blocks()
        assert await db.state("r") == "running"  # cancelled, but not committed
        await writer.commit()
        assert (await before_deadline(cancel, "the cascade")).runs == 2
        assert await db.state("r/c") == "completed"
        assert await db.state("r/c/g") == "cancelled"


async def test_a_level_that_has_no_live_run_does_not_end_the_cascade(raced: str, db: Session) -> None:
    async with working(raced, "x") as (canceller,):
        await db.put("r", "w")
        await db.put("r/c", "w")
        await db.put("r/c/g/h", "w")
        await db.put("r/c/g", "w")
        for run_id in ("r/c", "r/c/g"):
            await db.flush("w", turn(run_id, status=Complete(b"1")))
        assert (await canceller.journal.cancel("r", "")).runs == 2
        assert await db.state("r/c/g/h") == "cancelled"


@pytest.mark.parametrize("point", ["cancel.root", "cancel.level"])
async def test_a_flush_and_a_cascade_lock_in_one_order(raced: str, db: Session, point: str) -> None:
    async with working(raced, "w", "x") as (worker, canceller):
        runs = ["r", "r/z", "r/a/b", "r/a", "r/a/b/c"]
        for run_id in runs:
            await db.put(run_id, "w")
        stop = canceller.stepper.stop_at(point)
        cancel = asyncio.ensure_future(canceller.journal.cancel("r", ""))
        await stop.reached()
        flush = worker.stepper.stop_at("flush.begin")
        late = [worker.journal.submit(turn(run_id, keys=["late"])) for run_id in runs]
        await flush.reached()
        flush.let_go()
        await db.waits("continuum flush")
        stop.let_go()
        assert (await before_deadline(cancel, "the cascade")).runs == 5
        assert {(await future)[0] for future in late} == {Fenced()}
    assert await db.deadlocks() == 0


async def test_cascades_of_one_commit_take_their_levels_in_the_common_order(raced: str, db: Session) -> None:
    """A parent's close that cancels two children, against a flush of a run below each."""
    async with working(raced, "w", "x") as (worker, closing):
        await db.put("r", "x")
        for run_id in ("r/a", "r/a/deep", "r/b", "r/b/deep"):
            await db.put(run_id, "w")
        stops = [closing.stepper.stop_at(point) for point in ("cancel.root", "cancel.level")]
        cancels = (Cancellation("r/a", ""), Cancellation("r/b", ""))
        closed = closing.journal.submit(turn("r", cancels=cancels, status=Complete(b"1")))
        for stop in stops:
            await stop.reached()
            if stop is stops[0]:
                stop.let_go()
        late = [worker.journal.submit(turn(run_id, keys=["late"])) for run_id in ("r/a/deep", "r/b")]
        await db.waits("continuum flush")
        stops[1].let_go()
        assert isinstance((await before_deadline(closed, "the close"))[0], Committed)
        assert [(await before_deadline(future, "a flush"))[0] for future in late] == [Fenced(), Fenced()]
        assert await db.live_below("r") == 0
    assert await db.deadlocks() == 0


async def test_tasks_written_by_a_flush_that_the_cascade_waited_for_are_gone(raced: str, db: Session) -> None:
    async with working(raced, "x") as (canceller,), session(raced) as writer:
        for run_id in ("r", "r/c"):
            await db.put(run_id, "w")
        await writer.begin()
        task = NewTask("t", "queue", "act", b"null")
        await writer.flush("w", turn("r", tasks=(task,)))
        await writer.flush("w", turn("r/c", tasks=(task,), messages=(message("r/c", "mail"),)))
        cancel = asyncio.ensure_future(canceller.journal.cancel("r", ""))
        await writer.blocks()
        await writer.commit()
        assert (await before_deadline(cancel, "the cascade")).runs == 2
        assert await db.one("select count(*) from continuum.tasks") == 0
        assert await db.inbox_of("r/c") == []


async def test_a_cascade_locks_tasks_in_the_order_in_which_workers_renew_them(raced: str, db: Session) -> None:
    async with working(raced, "x") as (canceller,), session(raced) as renewing:
        await db.put("r", "w")
        keys = [f"k{9 - number}" for number in range(4)]  # the index on keys runs against the ids
        await db.flush("w", turn("r", tasks=tuple(NewTask(key, "queue", "act", b"null") for key in keys)))
        ids = [row[0] for row in await db.rows("select task_id from continuum.tasks order by task_id")]
        await renewing.begin()
        lock = "select 1 from continuum.tasks where task_id = $1 for update"
        await renewing.rows(lock, ids[0])
        cancel = asyncio.ensure_future(canceller.journal.cancel("r", ""))
        await renewing.blocks()
        for number in ids[1:]:
            await renewing.rows(lock, number)
        await renewing.commit()
        await before_deadline(cancel, "the cascade")
    assert await db.deadlocks() == 0


async def test_a_flush_drops_tasks_in_the_order_in_which_workers_renew_them(raced: str, db: Session) -> None:
    async with working(raced, "w") as (worker,), session(raced) as renewing:
        await db.put("r", "w")
        keys = [f"k{9 - number}" for number in range(4)]
        await worker.journal.commit(turn("r", tasks=tuple(NewTask(key, "queue", "act", b"null") for key in keys)))
        ids = [row[0] for row in await db.rows("select task_id from continuum.tasks order by task_id")]
        await renewing.begin()
        lock = "select 1 from continuum.tasks where task_id = $1 for update"
        await renewing.rows(lock, ids[0])
        pending = worker.journal.submit(turn("r", discarded=tuple(keys[::-1])))
        await renewing.blocks()
        for number in ids[1:]:
            await renewing.rows(lock, number)
        await renewing.commit()
        await before_deadline(pending, "the flush")
        assert await db.one("select count(*) from continuum.tasks") == 0
    assert await db.deadlocks() == 0


# --- a child's end


def _end(run_id: str, status: Status = Complete(b"1")) -> dict[str, Any]:
    parent, _, key = run_id.rpartition("/")
    return {"messages": (message(parent, key, kind="child_completed"),), "status": status}


async def test_a_child_that_ends_before_the_cascade_reaches_it_keeps_its_result(raced: str, db: Session) -> None:
    async with working(raced, "w", "x") as (worker, canceller):
        await db.put("r", "w")
        await db.put("r/c", "w")
        stop = canceller.stepper.stop_at("cancel.root")
        cancel = asyncio.ensure_future(canceller.journal.cancel("r", ""))
        await stop.reached()
        (outcome,) = await worker.journal.commit(turn("r/c", keys=["end"], **_end("r/c")))
        assert isinstance(outcome, Committed)
        stop.let_go()
        assert (await before_deadline(cancel, "the cascade")).runs == 1
        assert await db.state("r/c") == "completed"
        assert (await worker.journal.sweep(every_s=0)) is not None
        assert await db.inbox_of("r") == []  # it came after the inbox was emptied, and the parent has ended


async def test_a_child_that_ends_after_its_level_was_cancelled_is_fenced(raced: str, db: Session) -> None:
    async with working(raced, "w", "x") as (worker, canceller):
        await db.put("r", "w")
        await db.put("r/c", "w")
        stop = canceller.stepper.stop_at("cancel.level")
        cancel = asyncio.ensure_future(canceller.journal.cancel("r", ""))
        await stop.reached()
        end = worker.journal.submit(turn("r/c", keys=["end"], **_end("r/c")))
        await db.waits("continuum flush")
        stop.let_go()
        assert (await before_deadline(cancel, "the cascade")).runs == 2
        assert await end == (Fenced(),)
        assert await db.journal_of("r/c") == []


async def test_of_a_childs_end_and_its_cancellation_the_parent_hears_one(raced: str, db: Session) -> None:
    async with working(raced, "x") as (canceller,), session(raced) as ending:
        await db.put("r", "w")
        await db.put("r/c", "w")
        await ending.begin()
        await ending.flush("w", turn("r/c", **_end("r/c")))
        cancel = asyncio.ensure_future(canceller.journal.cancel("r/c", ""))
        await ending.blocks()
        await ending.commit()
        outcome = await before_deadline(cancel, "the cascade")
        assert (outcome.state, outcome.runs) == ("completed", 0)
        assert await db.rows("select type from continuum.inbox where run_id = 'r'") == [("child_completed",)]


@pytest.mark.parametrize("first", ["child", "parent"])
@pytest.mark.parametrize("closing", ["complete", "fail", "continue"])
async def test_a_childs_end_and_its_parents_close_both_stand(
    raced: str, db: Session, first: str, closing: str
) -> None:
    """Neither waits for the other: the child's flush does not touch its parent's row."""
    statuses: dict[str, Status] = {
        "complete": Complete(b"1"),
        "fail": Fail(b'{"type":"E","message":"m"}'),
        "continue": Continue(1, (entry("", kind="run_started"),)),
    }
    status = statuses[closing]
    async with working(raced, "c") as (childs,), session(raced) as parents:
        await db.put("r", "p")
        await db.put("r/c", "c")
        await parents.begin()
        if first == "parent":
            await parents.flush("p", turn("r", keys=["close"], status=status))
        (outcome,) = await before_deadline(childs.journal.commit(turn("r/c", **_end("r/c"))), "the child's end")
        assert isinstance(outcome, Committed)
        if first == "child":
            await parents.flush("p", turn("r", keys=["close"], status=status))
        await parents.commit()
        swept = await childs.journal.sweep(every_s=0)
        assert swept is not None
        if closing == "continue":
            assert swept.dropped == 0
            assert await db.inbox_of("r") == ["c"]  # the next generation reads it
            (claimed,) = await db.rows("select lease_owner, generation from continuum.runs where run_id = 'r'")
            assert claimed == ("p", 2)
        else:
            assert swept.dropped == 1
            assert await db.inbox_of("r") == []


async def test_a_parent_that_closes_cancels_children_that_were_just_started(raced: str, db: Session) -> None:
    async with working(raced, "w") as (worker,), session(raced) as below:
        await db.put("r", "w")
        await db.put("r/c", "o")
        await below.begin()
        await below.flush("o", turn("r/c", children=(child("r/c/g"),), status=Passivate()))
        closed = worker.journal.submit(turn("r", cancels=(Cancellation("r/c", ""),), status=Complete(b"1")))
        await below.blocks()
        await below.commit()
        assert isinstance((await before_deadline(closed, "the close"))[0], Committed)
        assert await db.state("r/c/g") == "cancelled"
        assert await db.live_below("r") == 0
