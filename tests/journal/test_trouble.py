"""Broken connections, refused statements, a Postgres that goes away: what becomes of commits and calls."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psycopg
import pytest

from continuum._journal.commit import Committed, Complete, Unknown
from continuum._journal.flusher import Flusher
from continuum._journal.lane import Lane
from continuum._journal.migrate import migrate
from continuum.embedded import TEST_SETTINGS, Server
from continuum.errors import DatabaseRefused, DatabaseUnreachable
from tests.databases import FAST_PLACE
from tests.journal.harness import (
    begin,
    blocked,
    child,
    claim,
    entry,
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
from tests.journal.races.stepper import Stepper


async def test_a_flush_whose_backend_is_killed_has_an_unknown_outcome(database: str) -> None:
    async with worker(database) as journal:
        run, _ = await begin(journal, root("r"), root("s"))
        with psycopg.connect(database) as somebody:
            somebody.execute("select 1 from continuum.runs where run_id = 'r' for update")
            writing = journal.submit(turn(run, entries=(entry(),)))
            await blocked(database)
            assert strike(database, "flush") == 1
            assert await soon(writing) == (Unknown(),)
        (again,) = [found for found in await journal.reclaim(await journal.leases()) if found.run_id == "r"]
        (loaded,) = await journal.load([again])
        assert loaded.entries == ()
        await write(journal, turn(again, entries=(entry(),)))


async def test_a_cancelled_or_deadlocked_flush_is_tried_again(database: str) -> None:
    async with worker(database) as journal:
        (run,) = await begin(journal)
        with psycopg.connect(database) as somebody:
            somebody.execute("select 1 from continuum.runs where run_id = 'r' for update")
            writing = journal.submit(turn(run, entries=(entry(),)))
            await blocked(database)
            assert strike(database, "flush", "pg_cancel_backend") == 1
        assert isinstance((await soon(writing))[0], Committed)
        assert select(database, "select count(*) from continuum.events") == [(1,)]


@pytest.mark.parametrize("state", ["53100", "53200", "57014", "40P01", "40001"])
async def test_an_error_that_is_not_the_commits_fault_is_waited_out(database: str, state: str) -> None:
    failing = f"""create function continuum.fail() returns trigger language plpgsql as $$ begin
        if nextval('continuum.failures') <= 2 then raise exception 'not now' using errcode = '{state}'; end if;
        return new; end $$"""
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute("create sequence continuum.failures")
        connection.execute(failing.encode())
        connection.execute(
            "create trigger f before insert on continuum.events for each row execute function continuum.fail()"
        )
    async with worker(database) as journal:
        run, large = await begin(journal, root("r"), root("s"))
        await write(journal, turn(run, entries=(entry(),)))
        select(database, "alter sequence continuum.failures restart")
        await write(journal, turn(large, entries=tuple(entry(f"a{number}") for number in range(2_001))))


async def test_refreshing_plans_disturbs_nothing(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from continuum._journal import flusher

    monkeypatch.setattr(flusher, "REFRESH_S", (0.0, 0.0, 0.0))
    refreshed: list[int] = []
    once = Flusher._refresh_plans

    async def counted(self: Flusher) -> None:
        await once(self)
        refreshed.append(self._refreshed)

    monkeypatch.setattr(Flusher, "_refresh_plans", counted)
    async with worker(database) as journal:
        (run,) = await begin(journal)
        for number in range(1, 9):
            await write(journal, turn(run, seq=number, entries=(entry(),)))
        assert max(refreshed) == 2


async def test_a_killed_connection_is_made_anew_for_every_kind_of_call(database: str) -> None:
    async with worker(database) as journal:
        run, _ = await begin(journal, root("r"), root("s"))
        assert (await journal.beat()).alive
        await journal.cancel("s", "")
        for name in ("journal", "heartbeat", "large", "hints", "flush", "listen"):
            strike(database, name)

        async def comes_back() -> bool:
            try:
                await journal.start([root("new")])
                await journal.beat()
                await journal.cancel("new", "")
                await journal.ends(["r"])
            except DatabaseUnreachable:
                return False
            return True

        await until(comes_back)
        found = (await soon(journal.commit(turn(run, entries=(entry(),)))))[0]
        if isinstance(found, Unknown):
            (run,) = await journal.reclaim(await journal.leases())
            found = (await soon(journal.commit(turn(run, entries=(entry(),)))))[0]
        assert isinstance(found, Committed)


async def test_a_new_connection_of_the_heartbeat_counts_as_newly_connected(database: str) -> None:
    connected = "select connected_at from continuum.workers"
    async with worker(database) as journal:
        await journal.beat()
        before = select(database, connected)
        await journal.beat()
        assert select(database, connected) == before
        strike(database, "heartbeat")
        with suppress(DatabaseUnreachable):  # it may be on its way when the connection ends
            await journal.beat()
        assert (await journal.beat()).alive
        assert select(database, connected) > before


async def test_a_statement_that_is_cancelled_is_told_as_trouble_of_the_database(database: str) -> None:
    async with worker(database) as journal:
        (run,) = await begin(journal)
        waiting = asyncio.ensure_future(journal.wait("r"))
        with psycopg.connect(database) as somebody:
            somebody.execute("lock table continuum.runs")
            claiming = asyncio.ensure_future(claim(journal))
            await blocked(database, "journal")

            async def told() -> bool:
                strike(database, "journal", "pg_cancel_backend")
                return claiming.done()

            await until(told)
        with pytest.raises(DatabaseUnreachable, match="canceling statement"):
            await claiming
        await write(journal, turn(run, status=Complete(b"1")))
        assert (await soon(waiting)).state == "completed", "who waits for an end is not disturbed"


async def test_a_cascade_whose_begin_is_disturbed_leaves_its_connection_usable(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with worker(database) as journal:
        await journal.start([root("r")])
        assert (await journal.cancel("r", "")).runs == 1
        answered = Lane.answered
        broken: list[bytes] = []

        async def disturbed(self: Lane, connection: object, text: bytes, arguments: object = ()) -> object:
            if text.startswith(b"set local") and not broken:
                broken.append(text)
                text = b"select 1 / 0"
            return await answered(self, connection, text, arguments)  # type: ignore[arg-type]

        monkeypatch.setattr(Lane, "answered", disturbed)
        await journal.start([root("s")])
        with pytest.raises(DatabaseRefused):
            await soon(journal.cancel("s", ""))
        assert broken
        assert (await soon(journal.cancel("s", ""))).runs == 1


async def test_a_role_with_another_isolation_level_cascades_all_the_same(database: str) -> None:
    name = psycopg.conninfo.conninfo_to_dict(database)["dbname"]
    select(database, f"alter database {name} set default_transaction_isolation = 'repeatable read'")
    hooks = Stepper()
    async with worker(database, hooks=hooks) as journal:
        (run,) = await begin(journal)
        stop = hooks.stop_at("cancel.begin")
        cancelling = asyncio.ensure_future(journal.cancel("r", ""))
        await stop.reached()
        await write(journal, turn(run, children=(child("r", "k"),)))
        stop.let_go()
        assert (await soon(cancelling)).runs == 2


# --- Postgres goes away and comes back


@pytest.fixture
def own_server() -> Iterator[Server]:
    with tempfile.TemporaryDirectory(prefix="continuum-own-", dir=FAST_PLACE) as folder:
        Path(folder).chmod(0o755)
        server = Server(Path(folder) / "home", TEST_SETTINGS)
        yield server
        server.stop()


async def test_commits_wait_for_a_postgres_that_is_away_and_calls_say_so(own_server: Server) -> None:
    url = own_server.start()
    await migrate(url)
    async with worker(url) as journal:
        runs = await begin(journal, *(root(f"r{number}") for number in range(6)))
        first, *others = runs
        await write(journal, turn(first, entries=(entry(),)))
        waiting = asyncio.ensure_future(journal.wait("r5"))
        await asyncio.to_thread(own_server.stop)
        unsent = journal.submit(turn(first, seq=2, entries=(entry(),)))
        for call in (journal.beat(), journal.start([root("new")]), journal.cancel("r1", ""), claim(journal)):
            with pytest.raises(DatabaseUnreachable) as caught:
                await soon(call)
            assert "\n" not in str(caught.value)
        for call in (journal.send([signal("r1")]), journal.mail(["r1"]), journal.take_over(), journal.sweep()):
            with pytest.raises(DatabaseUnreachable):
                await soon(call)
        commits = [journal.submit(turn(run, entries=(entry(),), status=Complete(b"1"))) for run in others]
        assert not any(commit.done() for commit in (unsent, *commits))
        assert await asyncio.to_thread(own_server.start) == url
        assert {type(found) for (found,) in await soon(asyncio.gather(unsent, *commits))} == {Committed}
        assert (await soon(waiting)).state == "completed"
        assert (await journal.beat()).alive


async def test_closing_while_postgres_is_away_takes_no_time(own_server: Server) -> None:
    url = own_server.start()
    await migrate(url)
    async with worker(url) as journal:
        (run,) = await begin(journal)
        await write(journal, turn(run))
        await asyncio.to_thread(own_server.stop)
        waiting = [journal.submit(turn(run, entries=(entry(),)))]
    (outcomes,) = await soon(asyncio.gather(*waiting))
    assert outcomes == (Unknown(),)
