"""Starts that come together share a commit, and nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import psycopg
import pytest

from continuum._journal import starts
from continuum._journal.journal import PostgresJournal
from continuum._journal.statements import Statement
from continuum.errors import DatabaseBusy, DatabaseRefused, DatabaseUnreachable
from tests.journal.harness import root, select, soon, until

COMMITS = "select count(distinct xmin::text) from continuum.runs"
IDS = "select array_agg(run_id order by run_id) from continuum.runs"


@pytest.fixture
async def journal(database: str) -> AsyncIterator[PostgresJournal]:
    async with PostgresJournal(database).open(migrating=False) as journal:
        yield journal


async def test_starts_that_come_together_are_one_commit(database: str, journal: PostgresJournal) -> None:
    ids = [f"r{number:03}" for number in range(300)]
    assert await asyncio.gather(*(journal.start([root(run_id)]) for run_id in ids)) == [{run_id} for run_id in ids]
    assert select(database, COMMITS) == [(1,)]


async def test_a_statement_that_starts_is_bounded(
    database: str, journal: PostgresJournal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(starts, "MOST_ROWS", 3)
    await asyncio.gather(*(journal.start([root(f"{name}{number}") for number in range(2)]) for name in "abc"))
    assert select(database, COMMITS) == [(3,)], "two calls of two runs are too much for one"
    monkeypatch.setattr(starts, "MOST_BYTES", 1)
    await asyncio.gather(*(journal.start([root(name)]) for name in "xy"))
    assert select(database, COMMITS) == [(5,)]


async def test_of_two_who_start_the_same_run_one_has(journal: PostgresJournal) -> None:
    found = await asyncio.gather(
        journal.start([root("a"), root("same")]),
        journal.start([root("same"), root("b")]),
        journal.start([root("c")]),
    )
    assert found == [{"a", "same"}, {"b"}, {"c"}]


async def test_what_is_refused_costs_its_neighbours_nothing(database: str, journal: PostgresJournal) -> None:
    good, bad, also = await asyncio.gather(
        journal.start([root("good")]),
        journal.start([root("bad", input=b"{"), root("with it")]),
        journal.start([root("also")]),
        return_exceptions=True,
    )
    assert (good, also) == ({"good"}, {"also"})
    assert isinstance(bad, DatabaseRefused)
    assert select(database, IDS) == [(["also", "good"],)]


async def test_who_waits_for_somebodys_transaction_waits_alone(database: str, journal: PostgresJournal) -> None:
    with psycopg.connect(database) as other:
        other.execute("insert into continuum.runs (run_id, workflow, version, input) values ('held', 'f', 1, '1')")
        held = asyncio.ensure_future(journal.start([root("held")]))
        assert await soon(asyncio.gather(journal.start([root("a")]), journal.start([root("b")]))) == [{"a"}, {"b"}]
        assert not held.done()
        other.rollback()
    assert await soon(held) == {"held"}


async def test_those_who_wait_for_somebodys_transaction_leave_others_a_way(
    database: str, journal: PostgresJournal
) -> None:
    ids = [f"held{number}" for number in range(9)]
    with psycopg.connect(database) as other:
        for run_id in ids:
            other.execute(
                "insert into continuum.runs (run_id, workflow, version, input) values (%s, 'f', 1, '1')", [run_id]
            )
        held = asyncio.gather(*(journal.start([root(run_id)]) for run_id in ids), return_exceptions=True)
        await until(waiting(database, 2))
        assert await soon(journal.start([root("free")])) == {"free"}
        assert not held.done()
        other.rollback()
    assert all(
        found == {run_id} or isinstance(found, DatabaseBusy) for found, run_id in zip(await held, ids, strict=True)
    )


def waiting(database: str, most: int) -> Callable[[], Awaitable[bool]]:
    """Return what tells whether so many starts wait patiently for a lock, and no more than that."""
    sql = """select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'
             and query like '%%insert into%%' and query not like '%%50ms%%'"""

    async def look() -> bool:
        ((count,),) = select(database, sql)
        assert count <= most
        return count == most

    return look


async def test_a_lost_answer_is_told_to_each_and_nothing_is_sent_again(
    journal: PostgresJournal, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[Any] = []

    async def write(found: Statement, values: dict[str, Any]) -> list[tuple[Any, ...]]:
        sent.append(values["runs"])
        raise DatabaseUnreachable("no answer") from ConnectionResetError()

    monkeypatch.setattr(journal._lanes, "write", write)
    errors = await asyncio.gather(*(journal.start([root(name)]) for name in "abc"), return_exceptions=True)
    for error in errors:
        assert isinstance(error, DatabaseUnreachable)
        assert str(error) == "no answer"
        assert isinstance(error.__cause__, ConnectionResetError)
    assert len(set(map(id, errors))) == 3, "a caller's note is for that caller"
    assert len(sent) == 1


async def test_who_stops_waiting_takes_nobody_along(database: str, journal: PostgresJournal) -> None:
    tasks = [asyncio.ensure_future(journal.start([root(name)])) for name in "abc"]
    await asyncio.sleep(0)
    tasks[1].cancel()
    assert await asyncio.gather(*tasks, return_exceptions=True)
    assert [task.cancelled() for task in tasks] == [False, True, False]
    assert await journal.start([root("d")]) == {"d"}
    assert select(database, IDS)[0][0] in (["a", "b", "c", "d"], ["a", "c", "d"])


async def test_who_ends_all_tasks_can_start_another_run(journal: PostgresJournal) -> None:
    """As a program may that is told to stop: what writes may not even have begun."""
    starting = asyncio.ensure_future(journal.start([root("a")]))
    await asyncio.sleep(0)
    for task in (starting, *journal.start.__self__._tasks):  # type: ignore[attr-defined]
        task.cancel()
    await asyncio.wait([starting])
    assert await soon(journal.start([root("b")])) == {"b"}
