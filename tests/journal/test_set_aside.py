"""Errors that lie with one commit alone: it is set aside or rejected, and its neighbours go on."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import psycopg
import pytest

from continuum._journal import wire
from continuum._journal.commit import Committed, Complete, Rejected, Undone, Unknown
from continuum._journal.connections import Connection
from continuum._journal.flusher import Flusher
from continuum._journal.lane import Lane
from continuum._journal.render import Rendered
from tests.journal.harness import (
    KID,
    begin,
    child,
    claim,
    entry,
    root,
    select,
    soon,
    strike,
    turn,
    until,
    worker,
    write,
)


def fail(url: str, state: str) -> None:
    """Let Postgres fail whenever an entry of the run "bad" is written."""
    text = f"""create function continuum.fail() returns trigger language plpgsql as $$ begin
        if new.run_id = 'bad' then raise exception 'not this one' using errcode = '{state}'; end if;
        return new; end $$"""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(text.encode())
        connection.execute(
            "create trigger f before insert on continuum.events for each row execute function continuum.fail()"
        )


@pytest.mark.parametrize("state", ["53100", "53200", "42501", "42P01", "55000"])
async def test_a_commit_that_fails_each_time_is_set_aside_and_tried_again(database: str, state: str) -> None:
    fail(database, state)
    async with worker(database) as journal:
        runs = await begin(journal, *(root(f"r{number}") for number in range(6)), root("bad"))
        commits = [journal.submit(turn(run, entries=(entry(),))) for run in runs]
        outcomes = await soon(asyncio.gather(*commits[:-1]))
        assert {type(found) for (found,) in outcomes} == {Committed}
        await write(journal, turn(runs[0], seq=2, entries=(entry(),)))
        assert not commits[-1].done(), "it is still tried"
        select(database, "drop trigger f on continuum.events")
        assert isinstance((await soon(commits[-1]))[0], Committed)
        assert select(database, "select count(*) from continuum.events where run_id = 'bad'") == [(1,)]


@pytest.mark.parametrize("state", ["XX000", "XX001"])
async def test_a_commit_that_breaks_the_server_is_rejected_after_a_few_attempts(database: str, state: str) -> None:
    fail(database, state)
    async with worker(database) as journal:
        *good, bad = await begin(journal, *(root(f"r{number}") for number in range(6)), root("bad"))
        commits = [journal.submit(turn(run, entries=(entry(),))) for run in (*good[:3], bad, *good[3:])]
        outcomes = [found for (found,) in await soon(asyncio.gather(*commits))]
        assert isinstance(outcomes.pop(3), Rejected)
        assert {type(found) for found in outcomes} == {Committed}
        await write(journal, turn(bad, status=Complete(b"1")))


async def test_an_error_of_the_server_that_passes_rejects_nobody(database: str) -> None:
    fail(database, "XX000")
    async with worker(database) as journal:
        good, bad = await begin(journal, root("good"), root("bad"))
        commits = [journal.submit(turn(run, entries=(entry(),))) for run in (good, bad)]
        select(database, "drop trigger f on continuum.events")
        assert {type(found) for (found,) in await soon(asyncio.gather(*commits))} == {Committed}


async def test_two_members_at_fault_are_both_rejected_and_their_mate_is_undone(database: str) -> None:
    async with worker(database) as journal:
        a, b, c = await begin(journal, root("a"), root("b"), root("c"))
        broken = (entry(payload=b"{"),)
        group = journal.commit(turn(a, entries=broken), turn(b, entries=(entry(),)), turn(c, entries=broken))
        assert [type(found) for found in await soon(group)] == [Rejected, Undone, Rejected]
        assert select(database, "select count(*) from continuum.events") == [(0,)]
        await write(journal, turn(a, entries=(entry(),)), turn(b, entries=(entry(),)))


async def test_a_member_whose_row_somebody_holds_is_not_at_fault(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    look = Flusher._fault
    async with worker(database) as journal:
        good, bad = await begin(journal, root("good"), root("bad"))
        with psycopg.connect(database) as somebody:

            async def held(self: Flusher, member: Rendered) -> str:
                somebody.execute("select 1 from continuum.runs where run_id = 'good' for update")
                return await look(self, member)

            monkeypatch.setattr(Flusher, "_fault", held)
            group = journal.commit(turn(good, entries=(entry(),)), turn(bad, entries=(entry(payload=b"{"),)))
            assert [type(found) for found in await soon(group)] == [Undone, Rejected]


async def test_finding_out_who_is_at_fault_leaves_no_transaction_open(database: str) -> None:
    async with worker(database) as journal:
        a, b = await begin(journal, root("a"), root("b"))
        await soon(journal.commit(turn(a, entries=(entry(),)), turn(b, entries=(entry(payload=b"{"),))))
        idle = "select 1 from pg_stat_activity where datname = current_database() and state like 'idle in%%'"

        async def none_is_open() -> bool:
            return select(database, idle) == []

        await until(none_is_open)
        await write(journal, turn(a, entries=(entry(),)), turn(b, entries=(entry(),)))


async def test_finding_out_who_is_at_fault_writes_nothing_though_the_connection_breaks_meanwhile(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On another connection there is no transaction to be rolled back: a child would end and tell nobody."""
    answered, struck = Lane.answered, list[int]()
    most = 1

    async def cut_off(self: Lane, connection: Connection, text: bytes, arguments: Sequence[Any] = ()) -> Any:
        rows = await answered(self, connection, text, arguments)
        if text == b"begin" and len(struck) < most:
            struck.append(strike(database, "flush"))
        return rows

    async with worker(database) as journal:
        (parent,) = await begin(journal)
        await write(journal, turn(parent, children=(child("r", "k"),)))
        kid = (await claim(journal, KID))["r/k"]
        monkeypatch.setattr(Lane, "answered", cut_off)
        group = journal.commit(turn(kid, status=Complete(b"1")), turn(parent, entries=(entry(payload=b"{"),)))
        assert [type(found) for found in await soon(group)] == [Undone, Rejected]
        assert struck == [1]
        assert select(database, "select state from continuum.runs where run_id = 'r/k'") == [("running",)]
        struck.clear()
        most = 2
        group = journal.commit(turn(kid, status=Complete(b"1")), turn(parent, entries=(entry(payload=b"{"),)))
        assert [type(found) for found in await soon(group)] == [Unknown, Unknown], "nobody is parked for another"


async def test_a_journal_closes_while_it_is_found_out_who_is_at_fault(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The statement is cancelled and its connection is gone: what comes of that hides no cancellation."""
    answered, asked = Lane.answered, asyncio.Event()
    begun = False

    async def slowly(self: Lane, connection: Connection, text: bytes, arguments: Sequence[Any] = ()) -> Any:
        nonlocal begun
        if self.name == "flush" and begun and not asked.is_set():
            asked.set()
            await answered(self, connection, b"select pg_sleep(600)")
        begun = begun or text == b"begin"
        return await answered(self, connection, text, arguments)

    opened = worker(database)
    journal = await opened.__aenter__()
    a, b = await begin(journal, root("a"), root("b"))
    monkeypatch.setattr(Lane, "answered", slowly)
    group = journal.submit(turn(a, entries=(entry(),)), turn(b, entries=(entry(payload=b"{"),)))
    await soon(asked.wait())
    closing = asyncio.ensure_future(opened.__aexit__(None, None, None))
    await asyncio.wait([closing], timeout=20)
    assert closing.done()
    assert [type(found) for found in await group] == [Unknown, Unknown]


async def test_a_transaction_that_cannot_be_rolled_back_goes_with_its_connection(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In one that has failed Postgres does not even forget an older statement, to make room for the rollback."""
    async with worker(database) as journal:
        a, b, c = await begin(journal, root("a"), root("b"), root("c"))
        monkeypatch.setattr(wire, "MOST_PREPARED", 1)
        await soon(journal.commit(turn(a, entries=(entry(),)), turn(b, entries=(entry(payload=b"{"),))))
        await write(journal, turn(c, entries=(entry(),)))
