"""What is told by the commit itself, who listens at all, and that a statement sent without a cursor is one."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from continuum._core.entries import Entry
from continuum._journal import hints, wire
from continuum._journal.commit import Complete, End
from continuum._journal.connections import connect
from continuum._journal.ends import Ends
from continuum._journal.hints import Hints, Telling
from continuum._journal.hooks import INERT
from continuum._journal.journal import PostgresJournal
from continuum._journal.lane import Lane
from continuum._journal.outside import starting, take_async
from continuum._journal.rows import rendered, root_row
from continuum._journal.statements import Statement, statement
from continuum._journal.wire import Wire
from continuum.errors import DatabaseBusy
from tests.journal.harness import begin, listening, root, select, signal, soon, turn, until, worker, write
from tests.journal.races.stepper import Stepper

READY = {"ready": ["flow:1"]}
LISTENING = (
    "select 1 from pg_stat_activity where application_name = 'continuum listen' and datname = current_database()"
)


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """However slow the machine is, commits tell."""
    monkeypatch.setattr(hints, "LONGEST_ALONG_S", 1e9)


@pytest.fixture
def noting() -> Hints:
    """Hints that are sent nowhere."""
    return Hints(Lane("", name="hints"), "continuum", INERT, lambda kind, names: None)


async def told(telling: Telling) -> bool:
    await asyncio.sleep(0)
    return bool(telling.parts)


async def test_what_a_commit_tells_is_heard_though_no_hint_is_ever_sent(database: str, patient: None) -> None:
    hooks = Stepper()
    async with worker(database, "a", hooks=hooks) as one, PostgresJournal(database).open() as client:
        heard = await listening(client)
        stop = hooks.stop_at("poke.begin")
        await one.start([root("r")])
        await heard.until("ready", "flow:1")
        (run,) = await begin(one, root("s"))
        await one.send([signal("s")])
        await heard.until("wake", "s")
        await write(one, turn(run, entries=(Entry("timer_fired", "t-1", 5, b"{}"),), status=Complete(b"1")))
        await heard.until("ended", run.run_id)
        stop.let_go()


async def test_of_commits_side_by_side_one_tells(noting: Hints, patient: None) -> None:
    assert await asyncio.gather(*(noting.along(READY, told) for _ in range(3))) == [
        (True, True),
        (False, False),
        (False, False),
    ]
    assert await noting.along({"ready": []}, told) == (False, False), "there is nothing to tell"
    assert await noting.along(READY, told) == (True, True)


async def test_after_two_commits_that_took_long_none_tells(noting: Hints, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hints, "LONGEST_ALONG_S", -1.0)
    monkeypatch.setattr(hints, "APART_S", 1e9)
    assert [(await noting.along(READY, told))[0] for _ in range(4)] == [True, True, False, False]


async def test_what_is_refused_with_its_hint_is_written_without(database: str) -> None:
    async with worker(database) as journal, PostgresJournal(database).open() as client:
        heard = await listening(journal)
        channel, client._hints._channels["ready"] = (
            client._hints._channels["ready"],
            "x" * 200,
        )  # Postgres takes 63
        assert await client.start([root("r")]) == {"r"}
        client._hints._channels["ready"] = channel
        assert await client.start([root("s")]) == {"s"}
        await heard.until("ready", "flow:1")


async def test_what_is_refused_anyhow_is_refused(noting: Hints) -> None:
    async def busy(_telling: Telling) -> bool:
        raise DatabaseBusy("held")

    with pytest.raises(DatabaseBusy):
        await noting.along(READY, busy)
    assert await noting.along(READY, told) == (False, False), "for a while"


async def test_who_holds_the_queue_of_notifications_makes_nobody_busy(noting: Hints) -> None:
    """Any commit in the server that tells holds it until it is on disk; Postgres names no row then."""

    async def held(telling: Telling) -> bool:
        if telling.parts:
            raise DatabaseBusy("held") from psycopg.errors.LockNotAvailable(
                "canceling statement due to lock timeout"
            )
        return await told(telling)

    assert await noting.along(READY, held) == (False, False)
    assert await noting.along(READY, told) == (False, False), "for a while"


async def test_for_a_row_that_somebody_holds_a_commit_that_tells_waits_once(database: str) -> None:
    asked: list[bool] = []
    async with (
        PostgresJournal(database).open() as client,
        await psycopg.AsyncConnection.connect(database) as connection,
    ):
        await take_async(connection, starting("continuum", [root("r")]))

        async def start(telling: Telling) -> list[tuple[object, ...]]:
            asked.append(bool(telling.parts))
            values = {"runs": rendered(root_row, [root("r")]), **telling.values}
            return await client._lanes.write(statement("start", "continuum", telling.parts), values)

        with pytest.raises(DatabaseBusy):
            await client._hints.along(READY, start)
    assert asked == [True]


async def test_who_only_starts_runs_listens_to_nothing(database: str) -> None:
    async with PostgresJournal(database).open() as client:
        await client.start([root("r")])
        assert select(database, LISTENING) == []
        waiting = asyncio.ensure_future(client.wait("r"))

        async def hears() -> bool:
            return client.hears

        await until(hears)
        assert select(database, LISTENING) == [(1,)]
        await client.cancel("r", "")
        assert (await waiting).state == "cancelled"


async def test_who_waits_for_what_began_here_asks_when_it_has_ended(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with worker(database) as journal:
        await listening(journal)
        read, asked = journal._ends._read, list[set[str]]()

        async def noted(names: object) -> object:
            asked.append(set(names))  # type: ignore[call-overload]
            return await read(names)  # type: ignore[arg-type]

        monkeypatch.setattr(journal._ends, "_read", noted)
        monkeypatch.setattr("continuum._journal.ends.POLL_S", 1e6)
        (run,) = await begin(journal)
        waiting = asyncio.ensure_future(journal.wait("r"))
        await journal.leases()
        assert asked == []
        await write(journal, turn(run, status=Complete(b"1")))
        assert (await waiting).state == "completed"
        assert asked == [{"r"}]
        assert (await journal.wait("r")).state == "completed", "what was heard of is asked for"


async def test_an_end_that_is_heard_before_the_start_is_answered_is_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("continuum._journal.ends.POLL_S", 1e6)

    async def read(names: Collection[str]) -> dict[str, End | None]:
        return dict.fromkeys(names, End("completed", b"1", None))

    ends = Ends(read, lambda: True)
    ends.begin(["r", "there"])
    ends.look(["r"])
    running = asyncio.ensure_future(ends.run())
    assert (await soon(ends.wait("r"))).state == "completed"
    waiting = asyncio.ensure_future(ends.wait("there"))
    await asyncio.sleep(0)
    ends.look(["there"])  # its start says that it did not begin now
    assert (await soon(waiting)).state == "completed"
    running.cancel()


async def test_what_somebody_discards_is_prepared_anew(database: str) -> None:
    wire = Wire(await connect(database, name="wire", prepared=True))
    assert await wire.rows(b"select 1", []) == [(1,)]
    await wire.rows(b"deallocate all", [])
    with pytest.raises(psycopg.errors.InvalidSqlStatementName):
        await wire.rows(b"select 1", [])
    assert await wire.rows(b"select 1", []) == [(1,)]
    wire.close()
    await wire.connection.close()


async def test_a_connection_that_breaks_while_a_statement_is_being_sent_ends_it(
    database: str, tmp_path: Path
) -> None:
    """libpq closes the socket by itself then, and the loop does not know its number any more."""
    at = conninfo_to_dict(database)
    reads, ends = asyncio.Event(), list[asyncio.StreamWriter]()
    reads.set()

    async def pass_on(source: asyncio.StreamReader, to: asyncio.StreamWriter) -> None:
        while data := await source.read(65536):
            await reads.wait()
            to.write(data)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        answers, server = await asyncio.open_unix_connection(f"{at['host']}/.s.PGSQL.{at['port']}")
        ends.extend((writer, server))
        await asyncio.gather(pass_on(reader, server), pass_on(answers, writer), return_exceptions=True)

    async with await asyncio.start_unix_server(serve, tmp_path / ".s.PGSQL.1"):
        connection = await connect(make_conninfo(database, host=str(tmp_path), port=1), name="wire", prepared=True)
        wire = Wire(connection)
        assert await wire.rows(b"select length($1)", ["x"]) == [(1,)]
        reads.clear()
        sending = asyncio.ensure_future(wire.rows(b"select length($1)", ["x" * 30_000_000]))
        await asyncio.sleep(0)
        for end in ends:
            end.transport.abort()
        with pytest.raises(psycopg.OperationalError):
            await soon(sending)
        wire.close()
        await connection.close()


async def test_a_wire_hears_when_the_server_ends_its_connection_and_looks_no_more(database: str) -> None:
    connection = await connect(database, name="wire")
    wire = Wire(connection)
    ((pid,),) = await wire.rows(b"select pg_backend_pid()", [])
    with psycopg.connect(database, autocommit=True) as other:
        other.execute("select pg_terminate_backend(%s, 10000)", [pid])

    async def ended() -> bool:
        return connection.closed

    await until(ended)
    assert wire._loop is None, "else the loop would be called for ever"
    with pytest.raises(psycopg.OperationalError):
        await wire.rows(b"select 1", [])
    await connection.close()


def test_a_wire_looks_with_the_loop_that_runs(database: str) -> None:
    """A connection that was made while another loop ran, which has ended by now, answers as any other does."""
    lane = Lane(database, name="lane", answer_s=10)
    statement = Statement(b"select pg_backend_pid()", ())
    assert asyncio.run(lane.rows(statement, {})) == asyncio.run(lane.rows(statement, {}))
    asyncio.run(lane.close())


async def test_a_statement_is_not_sent_on_a_connection_that_the_server_has_ended(database: str) -> None:
    """Nobody could tell whether it had happened; a restart of Postgres ends all that are idle."""
    lane = Lane(database, name="lane")
    statement = Statement(b"select pg_backend_pid()", ())
    ((pid,),) = await lane.rows(statement, {})
    with psycopg.connect(database, autocommit=True) as other:
        other.execute("select pg_terminate_backend(%s, 10000)", [pid])
    ((after,),) = await lane.rows(statement, {})
    assert (after != pid, lane.epoch) == (True, 2)
    await lane.close()


async def test_who_is_not_told_finds_out_though_others_ask_all_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """The hint of an end is lost when a worker dies right after its commit."""
    monkeypatch.setattr("continuum._journal.ends.POLL_S", 0.01)

    async def read(names: Collection[str]) -> dict[str, End | None]:
        return dict.fromkeys(names, End("completed", b"1", None))

    ends = Ends(read, lambda: True)
    ends.begin(["r"])
    running = asyncio.ensure_future(ends.run())
    waiting = asyncio.ensure_future(ends.wait("r"))

    async def asks() -> bool:
        await ends.wait("other")
        await asyncio.sleep(0)
        return waiting.done()

    await until(asks)
    running.cancel()


async def test_a_wire_prepares_a_bounded_number_of_statements(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wire, "MOST_PREPARED", 2)
    connection = await connect(database, name="wire")
    found = Wire(connection)
    try:
        for number in (1, 2, 3, 1):
            assert await found.rows(b"select $1::int + %d" % number, [number]) == [(2 * number,)]
        with pytest.raises(psycopg.errors.DivisionByZero):
            await found.rows(b"select 1 / $1::int", [0])
        kept = await found.rows(b"select count(*) from pg_prepared_statements where name like 'continuum%'", [])
        assert kept == [(2,)]
        big = "é" * 3_000_000
        assert await found.rows(b"select $1::text", [big]) == [(big,)]
    finally:
        found.close()
        await connection.close()
