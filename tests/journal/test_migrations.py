"""The schema: made, made again, half made, edited, newer than we are, seen by a role that may change nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from continuum._core.effects import Answer
from continuum._journal import migrate as module
from continuum._journal.commit import Complete
from continuum._journal.journal import PostgresJournal
from continuum._journal.migrate import Migration, migrate, migrations, roles_script
from continuum.errors import DatabaseUnreachable, SchemaMismatch
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
    task,
    turn,
    worker,
    write,
)
from tests.length import at_length

HELD_FOR_LONG = "select 'ok' from pg_sleep(1.2)"  # in Postgres: longer than a session of ours waits for a row
NAMES = [migration.name for migration in migrations()]


def one_line(caught: pytest.ExceptionInfo[Exception]) -> str:
    text = str(caught.value)
    assert "\n" not in text
    return text


async def prepare(url: str, *, migrating: bool, schema: str = "continuum") -> None:
    await PostgresJournal(url, schema=schema).prepare(migrating=migrating)


async def test_migrating_makes_everything_once(empty_database: str) -> None:
    assert await migrate(empty_database) == NAMES
    assert await migrate(empty_database) == []
    await prepare(empty_database, migrating=False)
    rows = select(empty_database, "select number, name, checksum from continuum.migrations order by number")
    assert rows == [(found.number, found.name, found.checksum) for found in migrations()]


async def test_many_at_once_migrate_once(empty_database: str) -> None:
    done = await asyncio.gather(*(migrate(empty_database) for _ in range(5)))
    assert sorted(name for names in done for name in names) == sorted(NAMES), "each by one of them"


@at_length
async def test_who_migrates_waits_for_another_that_does_however_long_it_takes(empty_database: str) -> None:
    """A journal's own sessions wait for locks for a second at most: a migration may take longer."""
    with psycopg.connect(empty_database) as somebody:
        somebody.execute("select pg_advisory_xact_lock(hashtextextended('continuum continuum', 0))")
        migrating = asyncio.ensure_future(migrate(empty_database))
        await blocked(empty_database, "migrate")
        assert select(empty_database, HELD_FOR_LONG) == [("ok",)]
        assert not migrating.done()
    assert await soon(migrating) == NAMES


async def test_without_migrating_one_is_told_what_lacks(empty_database: str) -> None:
    with pytest.raises(SchemaMismatch, match=NAMES[0]) as caught:
        await prepare(empty_database, migrating=False)
    assert "continuum db migrate" in one_line(caught)
    assert select(empty_database, "select 1 from pg_namespace where nspname = 'continuum'") == []


async def test_a_migration_with_another_text_is_refused_by_name(database: str) -> None:
    select(database, "update continuum.migrations set checksum = 'edited'")
    for migrating in (True, False):
        with pytest.raises(SchemaMismatch, match=NAMES[0]) as caught:
            await prepare(database, migrating=migrating)
        one_line(caught)


@pytest.mark.parametrize("migrating", [True, False])
async def test_a_newer_schema_is_used_if_it_says_that_we_may(database: str, migrating: bool) -> None:
    ours = max(found.number for found in migrations())
    add = "insert into continuum.migrations values (9000, '9000_future', 'x', %s)"
    select(database, add, ours)
    await prepare(database, migrating=migrating)
    async with PostgresJournal(database).open(migrating=migrating) as journal:
        assert await journal.start([root()]) == {"r"}
    select(database, "update continuum.migrations set oldest = %s where number = 9000", ours + 1)
    with pytest.raises(SchemaMismatch, match="9000_future") as caught:
        await prepare(database, migrating=migrating)
    assert "upgrade" in one_line(caught)


async def test_an_older_release_works_beside_a_newer_one(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "-- oldest release that can work beside it: 1\nalter table {schema}.runs add column mood text;"
    newer = Migration(9000, "9000_moods", text, "abc", 1)
    known = migrations()
    async with worker(database, "old") as old:
        (run,) = await begin(old)
        await write(old, turn(run, entries=(entry(),)))
        with monkeypatch.context() as patched:
            patched.setattr(module, "migrations", lambda: (*known, newer))
            assert await migrate(database) == ["9000_moods"]
        await write(old, turn(run, seq=2, entries=(entry(),), status=Complete(b"1")))
        assert (await old.views.describe("r")) is not None
    await prepare(database, migrating=False)


async def test_a_migration_that_has_to_wait_for_a_table_holds_up_nobody(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "-- oldest release that can work beside it: 1\ncreate index slow on {schema}.runs (trace);"
    newer = Migration(9000, "9000_slow", text, "abc", 1)
    known = migrations()
    async with worker(database) as journal:
        monkeypatch.setattr(module, "migrations", lambda: (*known, newer))
        run, other = await begin(journal, root("r"), root("s"))
        with psycopg.connect(database) as somebody:
            somebody.execute("update continuum.runs set priority = 1 where run_id = 's'")
            migrating = asyncio.ensure_future(migrate(database))
            await blocked(database, "migrate")
            await write(journal, turn(run, status=Complete(b"1")))
            assert not migrating.done()
        assert await soon(migrating) == ["9000_slow"]
        await write(journal, turn(other, status=Complete(b"1")))


async def test_a_migration_that_breaks_leaves_nothing(
    empty_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, *_ = migrations()
    broken = replace(first, text=first.text + "\ncreate table {schema}.never ();\nselect 1 / 0;")
    monkeypatch.setattr(module, "migrations", lambda: (broken,))
    with pytest.raises(SchemaMismatch, match="division by zero") as caught:
        await migrate(empty_database)
    one_line(caught)
    assert select(empty_database, "select 1 from pg_namespace where nspname = 'continuum'") == []
    monkeypatch.undo()
    assert await migrate(empty_database) == NAMES


async def test_a_migration_that_is_killed_leaves_nothing(
    empty_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, *_ = migrations()
    killed = replace(first, text=first.text + "\nselect pg_terminate_backend(pg_backend_pid());")
    monkeypatch.setattr(module, "migrations", lambda: (killed,))
    with pytest.raises((SchemaMismatch, DatabaseUnreachable)) as caught:
        await migrate(empty_database)
    one_line(caught)
    monkeypatch.undo()
    assert await migrate(empty_database) == NAMES


async def test_two_schemas_do_not_disturb_each_other(database: str) -> None:
    assert await migrate(database, schema="other") == NAMES
    async with worker(database) as here, PostgresJournal(database, schema="other").open() as there:
        await there.register("w", 10, {})
        (run,) = await begin(here, root("r", input=b"1"))
        (same,) = await begin(there, root("r", input=b"2"))
        await write(here, turn(run, status=Complete(b"1"), messages=(signal("r"),)))
        assert (run.input, same.input) == (b"1", b"2")
        assert await there.ends(["r"]) == {}
        assert await there.mail(["r"]) == {}
        await write(there, turn(same, status=Complete(b"2")))
        assert [end.result for end in (await here.ends(["r"])).values()] == [b"1"]


@pytest.mark.parametrize("schema", ["select", "user", "table", "order"])
async def test_a_reserved_word_is_a_schema_like_any_other(empty_database: str, schema: str) -> None:
    async with PostgresJournal(empty_database, schema=schema).open() as journal:
        assert await journal.start([root()]) == {"r"}
    await prepare(empty_database, migrating=False, schema=schema)
    assert "None" not in roles_script(schema)
    select(empty_database, roles_script(schema))
    select(
        empty_database,
        f"drop owned by {schema}_worker, {schema}_reader; drop role {schema}_worker, {schema}_reader",
    )


# --- roles


@pytest.fixture
def roles(database: str) -> Iterator[dict[str, str]]:
    """The urls of a stranger, a worker and a reader; roles are of the whole server, so they go at the end."""
    name = psycopg.conninfo.conninfo_to_dict(database)["dbname"]
    users = {kind: f"{name}_{kind}" for kind in ("stranger", "worker", "reader")}
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute(roles_script().encode())
        connection.execute(roles_script().encode())  # again, as after every migration
        for kind, user in users.items():
            connection.execute(f"create role {user} login".encode())
            if kind != "stranger":
                connection.execute(f"grant continuum_{kind} to {user}".encode())
    yield {kind: make_conninfo(database, user=user) for kind, user in users.items()}
    with psycopg.connect(database, autocommit=True) as connection:
        for user in (*users.values(), "continuum_worker", "continuum_reader"):
            connection.execute(f"drop owned by {user}; drop role {user}".encode())


async def test_the_worker_role_can_do_all_that_the_journal_does(roles: dict[str, str]) -> None:
    await prepare(roles["worker"], migrating=True)  # nothing is missing, so nothing is created
    async with worker(roles["worker"]) as journal:
        (run,) = await begin(journal)
        parts = {"entries": (entry(),), "tasks": (task(), task("u")), "messages": (signal("r"),)}
        await write(journal, turn(run, children=(child("r", "k"),), **parts))
        assert await journal.send([signal("r", delivery_id="d")]) == {}
        await write(journal, turn(run, answers=(Answer("d", b'{"result":1}'),)))
        assert await journal.wait_answer("r", "d") == b'{"result":1}'
        first, second = await journal.claim_tasks("q", 9, 10)
        assert await journal.renew_tasks([(first, b"1")], 10)
        assert await journal.report_tasks([(first, signal("r"))])
        assert await journal.retry_tasks([(second, 0)])
        assert await journal.requeue_tasks() == 0
        (loaded,) = await journal.load([run])
        consumed = tuple(mail.id for mail in loaded.mail)
        await write(journal, turn(run, seq=2, consumed=consumed, discarded=("u",)))
        assert (await journal.beat()).alive
        assert await journal.sweep(every_s=0) is not None
        await journal.take_over()
        await journal.announce([])
        await journal.definitions()
        await journal.reclaim(await journal.leases())
        await journal.release(await journal.leases())
        assert len(await claim(journal)) == 2
        assert (await journal.cancel("r", "")).runs == 2
        assert [row.state for row in await journal.views.below("r")] == ["cancelled"]
        await journal.deregister()


@pytest.mark.parametrize(
    "sql",
    [
        "create table continuum.mine ()",
        "alter table continuum.runs add column mine int",
        "drop table continuum.events",
        "truncate continuum.runs",
        "update continuum.migrations set checksum = ''",
        "drop schema continuum cascade",
    ],
)
async def test_the_worker_role_cannot_change_the_schema(roles: dict[str, str], sql: str) -> None:
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        select(roles["worker"], sql)


async def test_the_reader_role_reads_all_and_writes_nothing(roles: dict[str, str]) -> None:
    tables = select(roles["reader"], "select tablename from pg_tables where schemaname = 'continuum'")
    assert len(tables) >= 8
    for (table,) in [*tables, ("overview",)]:
        select(roles["reader"], f"select t::text from continuum.{table} t")
        for sql in (f"delete from continuum.{table}", f"insert into continuum.{table} default values"):
            with pytest.raises(
                (psycopg.errors.InsufficientPrivilege, psycopg.errors.ObjectNotInPrerequisiteState)
            ):
                select(roles["reader"], sql)


@pytest.mark.parametrize("migrating", [True, False])
async def test_a_role_without_rights_gets_one_clear_error(roles: dict[str, str], migrating: bool) -> None:
    with pytest.raises(SchemaMismatch, match="permission denied") as caught:
        await prepare(roles["stranger"], migrating=migrating)
    assert "role" in one_line(caught)


async def test_a_role_that_may_not_create_is_told_so(empty_database: str) -> None:
    name = psycopg.conninfo.conninfo_to_dict(empty_database)["dbname"]
    select(empty_database, f"create role {name}_poor login")
    try:
        with pytest.raises(SchemaMismatch, match="permission denied") as caught:
            await migrate(make_conninfo(empty_database, user=f"{name}_poor"))
        assert "continuum db migrate" in one_line(caught)
    finally:
        select(empty_database, f"drop role {name}_poor")


async def test_a_journal_without_rights_refuses_and_goes_on(roles: dict[str, str], database: str) -> None:
    async with worker(database) as journal:
        await begin(journal)
    async with worker(roles["worker"], "w2") as journal:
        select(database, "revoke all on all tables in schema continuum from continuum_worker")
        with pytest.raises(DatabaseUnreachable, match="permission denied"):
            await claim(journal)
        with pytest.raises(DatabaseUnreachable, match="permission denied"):
            await journal.cancel("r", "")
        with pytest.raises(DatabaseUnreachable, match="permission denied"):
            await journal.beat()
        select(database, "grant all on all tables in schema continuum to continuum_worker")
        assert (await journal.cancel("r", "")).runs == 1
