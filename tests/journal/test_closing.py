"""Closing, callers that give up, and other event loops: nobody is left waiting, nothing is left open."""

from __future__ import annotations

import asyncio

import psycopg
import pytest

from continuum._journal.commit import Claimed, Committed, Complete, Passivate, Unknown
from continuum._journal.journal import PostgresJournal
from continuum.errors import DatabaseUnreachable
from tests.journal.harness import (
    begin,
    blocked,
    claim,
    entry,
    listening,
    root,
    select,
    signal,
    soon,
    strike,
    turn,
    until,
    worker,
    write,
)


async def test_closing_leaves_nobody_waiting(database: str) -> None:
    with psycopg.connect(database) as somebody:
        async with worker(database) as journal:
            run, large, quick = await begin(journal, root("r"), root("s"), root("t"))
            somebody.execute("select 1 from continuum.runs for update")  # until everything is closed
            many = tuple(entry(f"a{number}") for number in range(2_500))
            commits = [journal.submit(turn(run, entries=(entry(),))), journal.submit(turn(large, entries=many))]
            ends = asyncio.ensure_future(journal.wait("r"))
            cancelling = asyncio.ensure_future(journal.cancel("t", ""))
            await blocked(database)
            await blocked(database, "large")
            commits.append(journal.submit(turn(quick, entries=(entry(),))))
        assert await soon(asyncio.gather(*commits)) == [(Unknown(),)] * 3
        with pytest.raises(DatabaseUnreachable, match="closed"):
            await soon(ends)
        with pytest.raises(DatabaseUnreachable):
            await soon(cancelling)


async def test_a_closed_journal_says_so(database: str) -> None:
    async with worker(database) as journal:
        (run,) = await begin(journal)
    for call in (
        journal.start([root("new")]),
        journal.beat(),
        journal.cancel("r", ""),
        journal.ends(["r"]),
        journal.wait("r"),
    ):
        with pytest.raises(DatabaseUnreachable, match="closed"):
            await soon(call)
    assert await soon(journal.commit(turn(run, entries=(entry(),)))) == (Unknown(),)
    sessions = "select 1 from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()"

    async def no_session_is_left() -> bool:
        return select(database, sessions) == []

    await until(no_session_is_left)


async def test_what_the_block_raises_is_raised_as_it_is(database: str) -> None:
    cause = KeyError("why")
    with pytest.raises(ValueError, match="mine") as caught:
        async with PostgresJournal(database).open():
            raise ValueError("mine") from cause
    assert caught.value.__cause__ is cause
    with pytest.raises(asyncio.CancelledError):
        async with PostgresJournal(database).open():
            raise asyncio.CancelledError


async def test_what_was_said_last_is_told_before_closing(database: str) -> None:
    async with worker(database) as journal:
        (run,) = await begin(journal)
        await write(journal, turn(run, status=Passivate()))
    async with PostgresJournal(database).open() as client:
        await client.send([signal("r")])
    async with worker(database, "next") as journal:
        assert set(await claim(journal)) == {"r"}, "the run is armed, no sweep was needed"


async def test_a_commit_whose_caller_was_cancelled_is_still_under_way(database: str) -> None:
    async with worker(database) as journal:
        (run,) = await begin(journal)
        with psycopg.connect(database) as somebody:
            somebody.execute("select 1 from continuum.runs for update")
            writing = asyncio.ensure_future(journal.commit(turn(run, entries=(entry(),))))
            await blocked(database)
            writing.cancel()
            await asyncio.gather(writing, return_exceptions=True)
            with pytest.raises(RuntimeError, match="under way"):
                await journal.commit(turn(run, entries=(entry(),)))

        async def is_written() -> bool:
            return select(database, "select count(*) from continuum.events") == [(1,)]

        await until(is_written)
        await until(lambda: second(journal, run))


async def second(journal: PostgresJournal, run: Claimed) -> bool:
    try:
        await write(journal, turn(run, seq=2, entries=(entry(),)))
    except RuntimeError:
        return False
    return True


async def test_a_server_that_became_read_only_is_left_for_another(database: str) -> None:
    name = psycopg.conninfo.conninfo_to_dict(database)["dbname"]
    async with worker(database) as journal:
        (run,) = await begin(journal)
        await write(journal, turn(run))
        select(database, f"alter database {name} set default_transaction_read_only = on")
        for lane in ("flush", "journal"):
            strike(database, lane)
        writing = journal.submit(turn(run, entries=(entry(),)))

        async def refused() -> bool:
            with pytest.raises(DatabaseUnreachable):
                await claim(journal)
            with pytest.raises(DatabaseUnreachable) as caught:
                await claim(journal)
            return "read-only" in str(caught.value)

        await until(refused)
        with psycopg.connect(database, autocommit=True) as somebody:
            somebody.execute("set default_transaction_read_only = off")
            somebody.execute(f"alter database {name} reset default_transaction_read_only".encode())
        assert isinstance((await soon(writing))[0], Committed)
        assert await claim(journal) == {}


async def test_a_hint_that_postgres_refuses_holds_up_no_other(database: str) -> None:
    async with worker(database, "a") as one, worker(database, "b") as other:
        heard = await listening(other)
        one._hints.say("ready", ["nul\0"])
        await one.start([root()])

        async def told() -> bool:
            one._hints.say("ready", ["flow:1"])
            return ("ready", "flow:1") in heard.hints

        await until(told)


@pytest.mark.parametrize("when", range(6))
async def test_a_caller_that_is_cancelled_disturbs_nobody(database: str, when: int) -> None:
    async with worker(database) as journal:
        run, other = await begin(journal, root("r"), root("s"))
        calls = [
            asyncio.ensure_future(call)
            for call in (
                journal.commit(turn(run, entries=(entry(),))),
                journal.start([root(f"new{when}")]),
                claim(journal),
                journal.cancel("nobody", ""),
                journal.wait("s"),
                journal.beat(),
                journal.room(),
            )
        ]
        for _ in range(when * 3):
            await asyncio.sleep(0)
        for call in calls:
            call.cancel()
        await soon(asyncio.gather(*calls, return_exceptions=True))
        await write(journal, turn(other, entries=(entry(),)))
        assert (await journal.beat()).alive
        assert await journal.start([root("after")]) == {"after"}
        written = select(database, "select count(*) from continuum.events where run_id = 'r'")
        assert written in ([(0,)], [(1,)])


def test_journals_of_several_event_loops_do_not_mix(database: str) -> None:
    async def once(name: str) -> set[str]:
        async with worker(database, name) as journal:
            (run,) = await begin(journal, root(name))
            await write(journal, turn(run, status=Complete(b"1")))
            return set(await journal.ends([name]))

    assert [asyncio.run(once(name)) for name in ("a", "b")] == [{"a"}, {"b"}]
