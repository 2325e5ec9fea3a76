"""A cascade with many roots, a close and a late cancel: against starts, ends, next generations and each other."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from continuum._core.effects import Cancellation
from continuum._journal.commit import Cancel, Committed, Complete, Continue, Fenced, Status
from tests.journal.races.sides import Session, child, entry, message, session, turn, working
from tests.journal.races.stepper import before_deadline

START = (entry("", kind="run_started"),)
STOPPED = Cancel(b'{"type":"cancelled","message":"enough"}')
STATUSES: dict[str, Status] = {
    "complete": Complete(b"1"),
    "continue": Continue(1, START),
    "retry": Continue(1, START, 1, "another attempt"),
}
CLOSING: dict[str, dict[str, Any]] = {
    "many": {"cancels": (Cancellation("r/a", ""), Cancellation("r/b", ""))},
    "close": {"status": Complete(b"1"), "descendants": "close"},
    "cancel": {"status": STOPPED, "descendants": "cancel"},
}
WAYS = pytest.mark.parametrize("way", CLOSING)


async def plant(db: Session, *names: str, owner: str = "w") -> None:
    """Put runs; the children among them close with their parent."""
    for name in names:
        await db.put(name, owner)
    await db.rows("update continuum.runs set on_parent_close = 'cancel' where depth = 1")


@WAYS
async def test_a_child_started_while_a_cascade_of_many_waits_for_its_parent_does_not_escape(
    raced: str, db: Session, way: str
) -> None:
    async with working(raced, "w") as (worker,), session(raced) as below:
        await plant(db, "r")
        await plant(db, "r/a", "r/b", owner="o")
        await below.begin()
        await below.flush("o", turn("r/b", keys=["s"], children=(child("r/b/g"),)))
        closed = worker.journal.submit(turn("r", **CLOSING[way]))
        await below.blocks()
        await below.commit()
        assert isinstance((await before_deadline(closed, "the cascade"))[0], Committed)
        assert [await db.state(run_id) for run_id in ("r/a", "r/b", "r/b/g")] == ["cancelled"] * 3


@WAYS
async def test_a_grandchild_started_while_its_level_is_waited_for_does_not_escape_many(
    raced: str, db: Session, way: str
) -> None:
    async with working(raced, "w") as (worker,), session(raced) as below:
        await plant(db, "r")
        await plant(db, "r/a", "r/b", "r/a/g", "r/b/g", owner="o")
        await below.begin()
        started = turn("r/a/g", keys=["s"], children=(child("r/a/g/h"),), status=Complete(b"1"))
        await below.flush("o", started)
        closed = worker.journal.submit(turn("r", **CLOSING[way]))
        await below.blocks()
        await below.commit()
        assert isinstance((await before_deadline(closed, "the cascade"))[0], Committed)
        assert await db.state("r/a/g") == "completed"
        assert [await db.state(run_id) for run_id in ("r/a/g/h", "r/b/g")] == ["cancelled"] * 2


@WAYS
@pytest.mark.parametrize("status", STATUSES)
async def test_what_a_child_does_before_the_cascade_stands_and_afterwards_is_fenced(
    raced: str, db: Session, way: str, status: str
) -> None:
    async with working(raced, "w", "o") as (worker, other), session(raced) as below:
        await plant(db, "r")
        await plant(db, "r/a", "r/b", owner="o")
        await below.begin()
        await below.flush("o", turn("r/a", keys=["s"], status=STATUSES[status]))
        closed = worker.journal.submit(turn("r", **CLOSING[way]))
        await below.blocks()
        late = other.journal.submit(turn("r/b", keys=["late"], status=STATUSES[status]))
        await below.commit()
        assert isinstance((await before_deadline(closed, "the cascade"))[0], Committed)
        assert await db.state("r/a") == ("completed" if status == "complete" else "cancelled")
        assert await db.one("select next_wakeup_at is null from continuum.runs where run_id = 'r/a'")
        (outcome,) = await before_deadline(late, "the late commit")
        if isinstance(outcome, Fenced):
            assert await db.state("r/b") == "cancelled"
            assert await db.journal_of("r/b") == []
        else:  # it was first: the cascade had not come to its row
            assert await db.journal_of("r/b")[:1] == ["late"]
    assert await db.deadlocks() == 0


@WAYS
async def test_a_commit_of_a_child_that_waits_for_the_cascade_is_fenced(raced: str, db: Session, way: str) -> None:
    async with working(raced, "w", "o") as (worker, other):
        await plant(db, "r")
        await plant(db, "r/a", "r/b", "r/b/g", owner="o")
        stop = worker.stepper.stop_at("large.written")
        closed = worker.journal.submit(turn("r", **CLOSING[way]))
        await stop.reached()
        late = [
            other.journal.submit(turn(name, keys=["late"], status=STATUSES["retry"]))
            for name in ("r/a", "r/b", "r/b/g")
        ]
        await db.waits("continuum flush")
        stop.let_go()
        assert isinstance((await before_deadline(closed, "the cascade"))[0], Committed)
        assert [(await before_deadline(future, "a commit"))[0] for future in late] == [Fenced()] * 3
        assert await db.live_below("r") == (1 if way == "many" else 0)
    assert await db.deadlocks() == 0


async def test_roots_of_several_depths_are_locked_in_the_common_order(raced: str, db: Session) -> None:
    """Named from the deepest up, and one of them lies above the run that cancels them."""
    names = ["r", "r/z", "r/a", "r/a/b", "r/z/y"]
    async with working(raced, "w", "o") as (worker, other):
        await plant(db, "r", "r/z", "r/a", "r/z/y", owner="o")
        await plant(db, "r/a/b")
        stops = [worker.stepper.stop_at(point) for point in ("cancel.root", "cancel.root")]
        cancels = tuple(Cancellation(name, "") for name in ("r/z/y", "r/a"))
        closed = worker.journal.submit(turn("r/a/b", cancels=cancels))
        await stops[0].reached()
        late = [other.journal.submit(turn(name, keys=["late"])) for name in names if name != "r/a/b"]
        await db.waits("continuum flush")
        for stop in stops:
            stop.let_go()
        assert isinstance((await before_deadline(closed, "the cascade"))[0], Committed)
        for future in late:
            await before_deadline(future, "a flush")
        states = {name: await db.state(name) for name in names}
        assert [name for name, state in states.items() if state == "cancelled"] == ["r/a", "r/a/b", "r/z/y"]
    assert await db.deadlocks() == 0


async def test_who_cancels_a_run_above_itself_locks_that_one_first(raced: str, db: Session) -> None:
    async with working(raced, "w", "o") as (worker, other):
        await plant(db, "r", "r/a", owner="o")
        await plant(db, "r/a/b")
        stop = worker.stepper.stop_at("large.locked")
        closed = worker.journal.submit(turn("r/a/b", cancels=(Cancellation("r/a", ""),)))
        await stop.reached()
        late = other.journal.submit(turn("r/a", keys=["late"]), turn("r/a/b", keys=["stale"]))
        await db.waits("continuum flush")
        stop.let_go()
        assert isinstance((await before_deadline(closed, "the cascade"))[0], Committed)
        assert await before_deadline(late, "the other's flush") == (Fenced(), Fenced())
        assert [await db.state(run_id) for run_id in ("r/a", "r/a/b")] == ["cancelled"] * 2
    assert await db.deadlocks() == 0


# --- late cancels


async def overdue(db: Session, run_id: str) -> None:
    sql = "insert into continuum.cancellations values ($1, now() - interval '1 second', 'late')"
    await db.rows(sql, run_id)


async def test_a_late_cancel_that_waits_for_a_completion_leaves_it(raced: str, db: Session) -> None:
    async with working(raced, "x") as (canceller,), session(raced) as ending:
        await db.put("r", "w")
        await overdue(db, "r")
        chosen = canceller.stepper.stop_at("cancel.begin")
        late = asyncio.ensure_future(canceller.journal.cancel_overdue())
        await chosen.reached()
        await ending.begin()
        await ending.flush("w", turn("r", keys=["end"], status=Complete(b"1")))
        chosen.let_go()
        await ending.blocks()
        await ending.commit()
        assert await before_deadline(late, "the late cancel") == 0
        assert await db.state("r") == "completed"
        assert await canceller.journal.cancel_overdue() == 0
        assert await db.one("select count(*) from continuum.cancellations") == 0


async def test_a_completion_that_waits_for_a_late_cancel_is_fenced(raced: str, db: Session) -> None:
    async with working(raced, "w", "x") as (worker, canceller):
        await db.put("r", "w")
        await overdue(db, "r")
        stop = canceller.stepper.stop_at("cancel.root")
        late = asyncio.ensure_future(canceller.journal.cancel_overdue())
        await stop.reached()
        end = worker.journal.submit(turn("r", keys=["end"], status=Complete(b"1")))
        await db.waits("continuum flush")
        stop.let_go()
        assert await before_deadline(late, "the late cancel") == 1
        assert await before_deadline(end, "the completion") == (Fenced(),)
        assert await db.journal_of("r") == []


@pytest.mark.parametrize("first", ["plain", "late"])
async def test_of_a_plain_cancel_and_a_late_one_the_first_counts(raced: str, db: Session, first: str) -> None:
    async with working(raced, "x", "y") as (one, other):
        for name in ("r", "r/a"):
            await db.put(name, "w")
            await overdue(db, name)
        stop = one.stepper.stop_at("cancel.root")
        plain, late = (one, other) if first == "plain" else (other, one)
        ways = {"plain": lambda: plain.journal.cancel("r", "now"), "late": late.journal.cancel_overdue}
        chosen = other.stepper.stop_at("cancel.begin")
        begin = ways.pop(first)
        second = asyncio.ensure_future(ways.popitem()[1]())
        await chosen.reached()
        begun = asyncio.ensure_future(begin())
        await stop.reached()
        chosen.let_go()
        await db.waits("continuum cancel")
        stop.let_go()
        results = [await before_deadline(found, "a cancel") for found in (begun, second)]
        counts = [found if isinstance(found, int) else found.runs for found in results]
        assert counts == [2, 0]
        assert ("now" if first == "plain" else "late") in await db.one(
            "select error::text from continuum.runs limit 1"
        )
        assert await db.one("select count(*) from continuum.cancellations") == 0
    assert await db.deadlocks() == 0


async def test_a_request_that_waits_for_another_is_no_second_message(raced: str, db: Session) -> None:
    async with working(raced, "x") as (asking,), session(raced) as caller:
        await db.put("r", "w")
        await caller.begin()
        await overdue(caller, "r")
        asked = asyncio.ensure_future(asking.journal.request_cancel("r", "", 60))
        await caller.blocks()
        await caller.commit()
        assert await before_deadline(asked, "the request") == "running"
        assert await db.inbox_of("r") == []
        assert await db.one("select due_at < now() from continuum.cancellations")


async def test_a_request_whose_forerunner_is_rolled_back_is_the_first(raced: str, db: Session) -> None:
    async with working(raced, "x") as (asking,), session(raced) as caller:
        await db.put("r", "w")
        await caller.begin()
        await overdue(caller, "r")
        await caller.rows("insert into continuum.inbox (run_id, type, key) values ('r', 'cancel_requested', '')")
        asked = asyncio.ensure_future(asking.journal.request_cancel("r", "", 60))
        await caller.blocks()
        await caller.roll_back()
        assert await before_deadline(asked, "the request") == "running"
        assert await db.one("select count(*) from continuum.inbox where type = 'cancel_requested'") == 1
        assert await db.one("select due_at > now() from continuum.cancellations")


async def test_a_parent_that_closes_hears_no_more_of_its_children(raced: str, db: Session) -> None:
    """A child's end that commits while its parent closes leaves its message, and the sweep drops it."""
    async with working(raced, "w") as (worker,), session(raced) as ending:
        await plant(db, "r")
        await plant(db, "r/a", "r/b", owner="o")
        await ending.begin()
        told = message("r", "a", kind="child_completed")
        await ending.flush("o", turn("r/a", status=Complete(b"1"), messages=(told,)))
        closed = worker.journal.submit(turn("r", **CLOSING["close"]))
        await ending.blocks()
        await ending.commit()
        assert isinstance((await before_deadline(closed, "the close"))[0], Committed)
        assert [await db.state(run_id) for run_id in ("r/a", "r/b")] == ["completed", "cancelled"]
        assert await db.one("select count(*) from continuum.inbox where type = 'child_cancelled'") == 0
        assert (await worker.journal.sweep(every_s=0)) is not None
        assert await db.inbox_of("r") == []
