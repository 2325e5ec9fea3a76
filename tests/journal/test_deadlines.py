"""Timeouts that a parent leaves behind: in its last commit, in large ones, and beside requests to stop."""

from __future__ import annotations

import asyncio
from typing import Any

import psycopg

from continuum._core.effects import Deadline, NewRun
from continuum._journal.commit import Claimed, Commit, Complete, Fenced, Undone
from tests.journal.harness import (
    begin,
    blocked,
    child,
    entry,
    root,
    select,
    soon,
    turn,
    worker,
    write,
)
from tests.length import at_length

DUE_US = 32_503_680_000_000_000  # the year 3000
DEADLINES = "select count(*) from continuum.cancellations"
ASKED = "select count(*) from continuum.inbox where type = 'cancel_requested'"


def kids(parent: str, count: int) -> tuple[NewRun, ...]:
    return tuple(child(parent, f"k{number:05}") for number in range(count))


def end(run: Claimed, left: tuple[NewRun, ...], **parts: Any) -> Commit:
    deadlines = tuple(Deadline(kid.run_id, DUE_US) for kid in left)
    return turn(run, status=Complete(b"1"), deadlines=deadlines, **parts)


async def test_deadlines_are_written_in_the_commit_that_ends_the_run(database: str) -> None:
    async with worker(database) as journal:
        (run,) = await begin(journal)
        children = kids("r", 2)
        await write(journal, end(run, children, children=children))
        sql = """select c.run_id, c.due_at = timestamptz '3000-01-01 UTC', c.reason, c.asks, c.xmin = r.xmin
                 from continuum.cancellations c cross join continuum.runs r where r.run_id = 'r' order by 1"""
        expected = [(kid.run_id, True, "timeout", 0, True) for kid in children]
        assert select(database, sql) == expected


async def test_a_commit_in_whose_batch_another_has_deadlines_is_written_as_ever(database: str) -> None:
    async with worker(database) as journal:
        run, other, zombie = await begin(journal, root("r"), root("s"), root("z"))
        lost = end(zombie, kids("z", 1))._replace(token=7)
        together = (journal.submit(end(run, kids("r", 1))), journal.submit(lost), journal.submit(turn(other)))
        outcomes = await soon(asyncio.gather(*together))
        assert [type(found).__name__ for (found,) in outcomes] == ["Committed", "Fenced", "Committed"]
        assert select(database, "select run_id from continuum.cancellations") == [("r/k00000",)]


async def test_a_large_end_leaves_all_its_deadlines_or_none(database: str) -> None:
    async with worker(database) as journal:
        run, other = await begin(journal, root("r"), root("s"))
        children = kids("r", 3_000)
        large = end(run, children, children=children)
        zombie = turn(other, entries=(entry(),))._replace(token=7)
        assert await soon(journal.commit(large, zombie)) == (Undone(), Fenced())
        assert select(database, DEADLINES) == [(0,)]
        await write(journal, large)
        assert select(database, DEADLINES) == [(3_000,)]


@at_length
async def test_an_end_that_waits_for_a_request_to_stop_holds_up_nobody_for_long(database: str) -> None:
    """Somebody asks the child to stop in a transaction that stays open: its parent's neighbours go on."""
    async with worker(database) as journal:
        run, free = await begin(journal, root("r"), root("free"))
        await write(journal, turn(run, children=kids("r", 1)))
        with psycopg.connect(database) as somebody:
            somebody.execute(
                "insert into continuum.cancellations values ('r/k00000', now() + interval '1 day', 'why')"
            )
            ending = journal.submit(end(run, kids("r", 1)))
            await blocked(database)
            for number in range(1, 4):
                await write(journal, turn(free, seq=number, entries=(entry(),)))
            assert not ending.done()
            somebody.commit()
        await soon(ending)
        found = "select reason, due_at < now() + interval '2 days', asks from continuum.cancellations"
        assert select(database, found) == [("why", True, 1)]


async def test_of_two_who_ask_a_child_with_a_timeout_to_stop_the_first_is_heard(database: str) -> None:
    async with worker(database) as journal, worker(database, "other") as other:
        (run,) = await begin(journal)
        await write(journal, turn(run, children=kids("r", 1)))
        await write(journal, end(run, kids("r", 1)))
        asking = [one.request_cancel("r/k00000", "enough", 60) for one in (journal, other) for _ in range(5)]
        assert set(await soon(asyncio.gather(*asking))) == {"pending"}
        assert select(database, ASKED) == [(1,)]
        assert select(database, "select reason, asks from continuum.cancellations") == [("enough", 10)]
