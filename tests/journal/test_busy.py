"""Rows and tables that somebody's open transaction holds: nobody waits long, nothing is lost."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace

import psycopg
import pytest

from continuum._journal.commit import Committed, Complete, Lease, Park
from continuum._journal.connections import connect
from continuum._journal.journal import PostgresJournal
from continuum._journal.outside import sending, starting, take_async
from continuum.errors import DatabaseBusy, MessageIdTaken
from tests.journal.harness import begin, blocked, entry, root, select, signal, soon, turn, until, worker, write
from tests.journal.races.stepper import Stepper
from tests.length import at_length


def visited(hooks: Stepper, times: int) -> Callable[[], Awaitable[bool]]:
    """A condition for ``until``: so many batches were sent."""

    async def look() -> bool:
        return hooks.visits["flush.begin"] >= times

    return look


async def test_releasing_skips_runs_that_somebody_holds(database: str) -> None:
    async with worker(database) as journal:
        await begin(journal, root("r"), root("s"))
        leases = await journal.leases()
        with psycopg.connect(database) as somebody:
            somebody.execute("select 1 from continuum.runs where run_id = 'r' for update")
            assert await soon(journal.release(leases)) == {"s"}
        assert await journal.release(leases) == {"r"}


async def test_reclaiming_leaves_out_what_somebody_holds(database: str) -> None:
    async with worker(database) as journal:
        await begin(journal, root("r"), root("s"))
        leases = [Lease("r", 1), Lease("s", 1)]
        with psycopg.connect(database) as somebody:
            somebody.execute("select 1 from continuum.runs where run_id = 'r' for update")
            assert [(run.run_id, run.token) for run in await soon(journal.reclaim(leases))] == [("s", 2)]
            assert set(await journal.leases()) == {Lease("r", 1), Lease("s", 2)}
        found = await journal.reclaim(leases)
        assert {(run.run_id, run.token) for run in found} == {("r", 2), ("s", 3)}


async def test_starting_what_an_open_transaction_starts_ends_busy(database: str) -> None:
    async with PostgresJournal(database).open() as client:
        async with await psycopg.AsyncConnection.connect(database) as connection:
            assert await take_async(connection, starting("continuum", [root("r")])) == {"r"}
            with pytest.raises(DatabaseBusy):
                await soon(client.start([root("r"), root("s")]))
            await connection.rollback()
        assert await client.start([root("r"), root("s")]) == {"r", "s"}


@at_length
async def test_a_delivery_that_an_open_transaction_makes_ends_busy_and_counts_once(database: str) -> None:
    async with PostgresJournal(database).open() as client:
        await client.start([root("r"), root("s")])
        sent = [signal("r", delivery_id="d"), signal("s", delivery_id="d")]
        for end, mine in (("rollback", 2), ("commit", 0)):
            async with await psycopg.AsyncConnection.connect(database) as connection:
                await take_async(connection, sending("continuum", [signal("r", b"2", delivery_id=f"{end} d")]))
                again = [replace(message, delivery_id=f"{end} d") for message in sent]
                with pytest.raises(DatabaseBusy):
                    await soon(client.send(again))
                await getattr(connection, end)()
            before = len((await client.mail(["r"])).get("r", ()))
            assert await client.send(again) == {}
            assert len((await client.mail(["r"]))["r"]) - before == (mine > 0)
        assert [mail.payload for mail in (await client.mail(["r"]))["r"]] == [b'{"payload":1}', b'{"payload":2}']


async def test_many_who_wait_for_one_id_leave_others_a_way(database: str) -> None:
    """As of a webhook that is sent again and again while its first call is still at it."""
    async with PostgresJournal(database, connections=2).open() as client:
        await client.start([root("r")])
        async with await psycopg.AsyncConnection.connect(database) as connection:
            await take_async(connection, sending("continuum", [signal("r", delivery_id="d")]))
            again = [asyncio.ensure_future(client.send([signal("r", delivery_id="d")])) for _ in range(6)]
            await blocked(database, "journal")
            await soon(client.start([root("other")]))
            assert not any(waiting.done() for waiting in again), "it had not to wait until one of them gave up"
            await connection.commit()
            ends = await soon(asyncio.gather(*again, return_exceptions=True))
        assert {type(end) for end in ends} <= {dict, DatabaseBusy}
        assert len((await client.mail(["r"]))["r"]) == 1


async def test_an_id_that_an_open_transaction_gives_to_another_message_is_taken_once_that_commits(
    database: str,
) -> None:
    """The statement that waited does not see the row it met: it was committed after the statement began."""
    async with PostgresJournal(database).open() as client:
        await client.start([root("r")])
        async with await psycopg.AsyncConnection.connect(database) as connection:
            await take_async(connection, sending("continuum", [signal("r", name="a", delivery_id="d")]))
            late = asyncio.ensure_future(client.send([signal("r", name="b", delivery_id="d")]))
            await blocked(database, "journal")
            await connection.commit()
        with pytest.raises(MessageIdTaken):
            await soon(late)
        assert [mail.key for mail in (await client.mail(["r"]))["r"]] == ["a"]


@at_length
async def test_resuming_a_run_that_somebody_holds_ends_busy(database: str) -> None:
    async with worker(database) as journal:
        (run,) = await begin(journal)
        await write(journal, turn(run, status=Park(b'{"type":"E","message":"m"}')))
        with psycopg.connect(database) as somebody:
            somebody.execute("select 1 from continuum.runs for update")
            with pytest.raises(DatabaseBusy):
                await soon(journal.resume("r"))
        assert await journal.resume("r")


async def test_a_cascade_tells_that_others_hold_its_runs(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from continuum._journal import canceller

    monkeypatch.setattr(canceller, "PATIENCE_S", 0.0)
    async with worker(database) as journal:
        await journal.start([root()])
        with psycopg.connect(database) as somebody:
            somebody.execute("select 1 from continuum.runs for update")
            with pytest.raises(DatabaseBusy, match="'r'"):
                await soon(journal.cancel("r", ""))
        assert (await journal.cancel("r", "")).runs == 1


@pytest.mark.parametrize("postgres", ["embedded", "system"])
async def test_what_a_role_sets_for_its_sessions_is_not_for_ours(database: str) -> None:
    name = psycopg.conninfo.conninfo_to_dict(database)["dbname"]
    ours = {
        "statement_timeout": ("1s", "0"),
        "idle_session_timeout": ("1s", "0"),
        "idle_in_transaction_session_timeout": ("1s", "0"),
        "lock_timeout": ("20ms", "1s"),
        "default_transaction_isolation": ("serializable", "read committed"),
        "jit": ("on", "off"),
    }
    if select(database, "select 1 from pg_settings where name = 'transaction_timeout'"):
        ours["transaction_timeout"] = ("1s", "0")
    for setting, (value, _) in ours.items():
        select(database, f"alter database {name} set {setting} = '{value}'")
    connection = await connect(database, name="journal")
    try:
        for setting, (_, wanted) in ours.items():
            row = await (await connection.execute(f"show {setting}".encode())).fetchone()
            assert row == (wanted,), setting
    finally:
        await connection.close()


@at_length
async def test_a_locked_table_keeps_commits_together_until_it_is_free(database: str) -> None:
    hooks = Stepper()
    async with worker(database, hooks=hooks) as journal:
        runs = await begin(journal, *(root(f"r{number:02}") for number in range(20)))
        await write(journal, turn(runs[0]))
        before = hooks.visits["flush.begin"]

        async def set_aside() -> bool:
            return len(journal._flusher._held) == len(runs)

        with psycopg.connect(database) as somebody:
            somebody.execute("lock table continuum.events in share mode")
            commits = [journal.submit(turn(run, entries=(entry(),))) for run in runs]
            await until(set_aside)
            assert not any(commit.done() for commit in commits)
        outcomes = await soon(asyncio.gather(*commits))
        assert {type(found) for (found,) in outcomes} == {Committed}
        assert select(database, "select count(*) from continuum.events") == [(20,)]
        assert hooks.visits["flush.begin"] <= before + 4, "the batch stayed whole"


async def test_commits_without_what_is_locked_go_on_beside_a_locked_table(database: str) -> None:
    hooks = Stepper()
    async with worker(database, hooks=hooks) as journal:
        stuck, free = await begin(journal, root("stuck"), root("free"))
        with psycopg.connect(database) as somebody:
            somebody.execute("lock table continuum.events in share mode")
            waits = journal.submit(turn(stuck, entries=(entry(),)))
            await blocked(database)
            (found,) = await soon(journal.commit(turn(free, messages=(signal("stuck"),))))
            assert isinstance(found, Committed)
            assert not waits.done()
        assert isinstance((await soon(waits))[0], Committed)


async def test_who_waits_for_an_end_goes_on_waiting_while_a_table_is_locked(database: str) -> None:
    async with worker(database) as journal:
        (run,) = await begin(journal)
        with psycopg.connect(database) as somebody:
            somebody.execute("lock table continuum.runs in access exclusive mode")
            waiting = asyncio.ensure_future(journal.wait("r"))
            await blocked(database, "journal")
            with pytest.raises(DatabaseBusy):
                await soon(journal.ends(["r"]))  # it came behind the one that waits, so that one has given up, too
        await write(journal, turn(run, status=Complete(b"1")))
        assert (await soon(waiting)).result == b"1"
