"""Inside a caller's own transaction, when something is refused there."""

import logging
from collections.abc import Collection

import psycopg
import pytest

from continuum._journal import outside
from continuum._journal.cascade import Cascade, Steps, cancelling
from continuum._journal.commit import Complete, Passivate
from continuum._journal.journal import PostgresJournal
from continuum.errors import DatabaseRefused, RunNotActive, RunNotFound
from tests.databases import run
from tests.journal.harness import begin, child, claim, entry, listening, root, signal, turn, worker, write
from tests.until import until

SCHEMA = "continuum"


async def test_a_refused_message_leaves_the_callers_transaction_as_it_was(database: str) -> None:
    async with PostgresJournal(database).open() as journal:
        await journal.start([root("r")])
        await journal.cancel("r", "")
    with psycopg.connect(database) as connection:
        connection.execute("create table orders (id int)")
        connection.execute("insert into orders values (1)")
        with pytest.raises(RunNotActive):
            outside.take(connection, outside.sending(SCHEMA, [signal("r")]))
        with pytest.raises(RunNotFound):
            outside.take(connection, outside.cancelling_here(SCHEMA, "nobody", ""))
        connection.execute("insert into orders values (2)")
    with psycopg.connect(database) as connection:
        assert connection.execute("select count(*) from orders").fetchone() == (2,)


def broken(schema: str, run_id: str, reason: str) -> Steps[Cascade]:
    """A cascade that fails behind its first level."""
    steps = cancelling(schema, run_id, reason)
    step = next(steps)
    while step.point != "cancel.level":
        step = steps.send((yield step))
    yield step
    raise LookupError("the caller's program has a bug")


async def test_without_a_transaction_a_cascade_is_one_all_the_same(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with worker(database) as journal:
        (parent,) = await begin(journal)
        await write(journal, turn(parent, entries=(entry(),), children=(child("r", "a"), child("r", "b"))))
        async with await psycopg.AsyncConnection.connect(database, autocommit=True) as connection:
            monkeypatch.setattr(outside, "cancelling", broken)
            with pytest.raises(LookupError):
                await outside.take_async(connection, outside.cancelling_here(SCHEMA, "r", "enough"))
            assert {row.state for row in await journal.views.below("r")} == {"pending"}
            monkeypatch.undo()
            done = await outside.take_async(connection, outside.cancelling_here(SCHEMA, "r", "enough"))
        assert done.runs == 3
        assert {(await journal.wait(run_id)).state for run_id in ("r", "r/a", "r/b")} == {"cancelled"}


async def test_the_first_statement_begins_the_callers_transaction_and_does_not_end_it(database: str) -> None:
    async with PostgresJournal(database).open() as journal:
        with psycopg.connect(database) as connection:
            assert outside.take(connection, outside.starting(SCHEMA, [root("r")])) == {"r"}
            connection.rollback()
        assert await journal.views.describe("r") is None


@pytest.mark.parametrize("autocommit", [True, False])
async def test_messages_of_which_one_has_no_receiver_are_not_sent_at_all(database: str, autocommit: bool) -> None:
    async with PostgresJournal(database).open() as journal:
        await journal.start([root("live"), root("ended")])
        await journal.cancel("ended", "")
        with psycopg.connect(database, autocommit=autocommit) as connection:
            for missing, error in (("nobody", RunNotFound), ("\udc80", RunNotFound), ("ended", RunNotActive)):
                for receivers in (("live", missing), (missing, "live")):
                    with pytest.raises(error):
                        outside.take(connection, outside.sending(SCHEMA, [signal(to) for to in receivers]))
            connection.commit()
        assert await journal.mail(["live"]) == {}
        with psycopg.connect(database) as connection:
            outside.take(connection, outside.sending(SCHEMA, [signal("live"), signal("live")]))
        assert len((await journal.mail(["live"]))["live"]) == 2


@pytest.mark.parametrize("committed", [True, False])
async def test_a_start_on_the_callers_connection_is_part_of_its_transaction(
    database: str, committed: bool
) -> None:
    async with PostgresJournal(database).open() as client, worker(database) as journal:
        heard = await listening(journal)
        async with await psycopg.AsyncConnection.connect(database) as connection:
            await connection.execute("create table orders (id int)")
            assert await outside.take_async(connection, outside.starting(SCHEMA, [root("r"), root("s")])) == {
                "r",
                "s",
            }
            assert await outside.take_async(connection, outside.starting(SCHEMA, [root("r")])) == set()
            assert await client.describe("r") is None
            await (connection.commit() if committed else connection.rollback())
        if committed:
            await heard.until("ready", "flow:1")
        assert len(await claim(journal)) == (2 if committed else 0)


async def test_text_that_no_encoding_has_leaves_the_callers_transaction_as_it_was(database: str) -> None:
    async with PostgresJournal(database).open() as journal:
        async with await psycopg.AsyncConnection.connect(database) as connection:
            await connection.execute("create table orders (id int)")
            with pytest.raises(DatabaseRefused):
                await outside.take_async(connection, outside.starting(SCHEMA, [root("\udc80")]))
            await outside.take_async(connection, outside.starting(SCHEMA, [root("r")]))
        assert await journal.describe("r") is not None


async def test_whoever_is_told_may_fail_and_hears_the_next_hint(
    database: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with worker(database) as journal, PostgresJournal(database).open() as other:
        heard = await listening(other)
        take = heard.take

        def fail_once(kind: str, names: Collection[str]) -> None:
            other.on_hint = take
            raise LookupError("no such engine")

        other.on_hint = fail_once
        with caplog.at_level(logging.ERROR, "continuum.journal"):
            await journal.start([root("r")])
            while not caplog.records:
                await journal.beat()
        await journal.start([root("s", workflow="other")])
        await heard.until("ready", "other:1")


async def test_a_roles_statement_timeout_does_not_cut_the_journal_off(database: str) -> None:
    name = psycopg.conninfo.conninfo_to_dict(database)["dbname"]
    run(database, f"alter database {name} set statement_timeout = '20ms'")
    run(
        database,
        "create function continuum.slow() returns trigger language plpgsql as "
        "$$ begin perform pg_sleep(0.05); return new; end $$",
    )
    run(database, "create trigger slow before insert on continuum.events execute function continuum.slow()")
    async with worker(database) as journal:
        (parent,) = await begin(journal)
        await write(journal, turn(parent, entries=(entry(),)))


@pytest.mark.parametrize("committed", [True, False])
async def test_a_request_to_stop_on_the_callers_connection_is_part_of_its_transaction(
    database: str, committed: bool
) -> None:
    async with worker(database) as journal:
        (held, _) = await begin(journal, root("r"), root("s"))
        await write(journal, turn(held, status=Passivate()))
        asking = await journal.outside()
        async with await psycopg.AsyncConnection.connect(database) as connection:
            for run_id in ("r", "r", "s"):
                await outside.take_async(connection, asking.request_cancel(run_id, "enough", 0))
            assert not (await journal.beat()).overdue
            await (connection.commit() if committed else connection.rollback())
        assert (await journal.beat()).overdue is committed
        assert {run_id: len(mail) for run_id, mail in (await journal.mail("rs")).items()} == (
            {"r": 1, "s": 1} if committed else {}
        )
        if committed:

            async def woken() -> bool:
                return "r" in await claim(journal)

            await until(woken)


async def test_who_asks_on_a_connection_hears_of_runs_that_are_not_live(database: str) -> None:
    async with worker(database) as journal:
        done, _ = await begin(journal, root("done"), root("gone"))
        await write(journal, turn(done, status=Complete(b"1")))
        await journal.cancel("gone", "")
        asking = await journal.outside()
        with psycopg.connect(database) as connection:
            with pytest.raises(RunNotActive):
                outside.take(connection, asking.request_cancel("done", "", 1))
            for missing in ("nobody", "\udc80"):
                with pytest.raises(RunNotFound):
                    outside.take(connection, asking.request_cancel(missing, "", 1))
            outside.take(connection, asking.request_cancel("gone", "", 1))
            with pytest.raises(DatabaseRefused):
                outside.take(connection, asking.request_cancel("done", "a\0b", 1))
            outside.take(connection, asking.request_cancel("gone", "", 1e300))
        assert await journal.mail(["done", "gone"]) == {}
