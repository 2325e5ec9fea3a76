"""Connecting: which database, which schema, and what a client says where it cannot work."""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import continuum
from continuum import (
    Client,
    DatabaseUnreachable,
    InvalidSetting,
    SchemaMismatch,
    WorkflowMisuse,
    connect,
    workflow,
)
from continuum._journal.journal import PostgresJournal
from continuum.embedded import TEST_SETTINGS, Server
from tests.client.flows import Order, Receipt, audit_flow, complete, order_flow
from tests.core.harness import Run
from tests.databases import FAST_PLACE
from tests.journal.harness import select, soon, until


@pytest.fixture
def home() -> Iterator[Path]:
    """A folder for an embedded server of the test's own, which runs and is kept until the end."""
    folder = Path(tempfile.mkdtemp(prefix="continuum-tests-", dir=FAST_PLACE))
    folder.chmod(0o755)
    server = Server(folder / "home", TEST_SETTINGS, idle_stop=0.1)
    server.start()
    yield folder / "home"
    server.stop()
    shutil.rmtree(folder)


async def test_without_a_url_the_embedded_server_is_used_and_one_line_says_so(
    home: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CONTINUUM_HOME", str(home))
    caplog.set_level(logging.INFO, "continuum")
    async with connect() as client:
        assert (await (await client.start(audit_flow)).describe()).state == "pending"
    said = [record.getMessage() for record in caplog.records if record.name == "continuum"]
    assert said == [f"no database url is given, so the embedded Postgres in {home.resolve()} is used"]
    caplog.clear()
    monkeypatch.setenv("CONTINUUM_DATABASE_URL", "postgresql://nobody@127.0.0.1:1/none")
    async with connect(home=home) as client:
        assert len(await client.list_runs()) == 1
    assert [record.name for record in caplog.records if record.name == "continuum"] == ["continuum"]


async def test_a_connect_that_is_cancelled_holds_no_server(home: Path) -> None:
    async def enter() -> None:
        async with connect(home=home):
            raise AssertionError("not reached")

    entering = asyncio.ensure_future(enter())
    await asyncio.sleep(0)  # the thread that attaches is on its way
    entering.cancel()
    with pytest.raises(asyncio.CancelledError):
        await entering
    (home / "server.keep").unlink()

    async def has_stopped() -> bool:
        return not Server(home).status().running

    await until(has_stopped)


async def test_the_environment_says_what_is_not_given(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONTINUUM_DATABASE_URL", database)
    monkeypatch.setenv("CONTINUUM_SCHEMA", "other")
    monkeypatch.setenv("CONTINUUM_LISTEN_URL", database)
    async with connect() as client:
        await client.start(audit_flow, id="r")
        async with client.open_journal() as journal:
            assert journal.schema == "other"
    assert select(database, "select run_id from other.runs") == [("r",)]
    assert select(database, "select run_id from continuum.runs") == []
    async with connect(schema="continuum") as client:
        assert await client.list_runs() == []


async def test_a_schema_is_migrated_unless_that_is_refused(
    empty_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(SchemaMismatch):
        async with connect(empty_database, migrate=False):
            pass
    monkeypatch.setenv("CONTINUUM_MIGRATE", "no")
    with pytest.raises(SchemaMismatch):
        async with connect(empty_database):
            pass
    async with connect(empty_database, migrate=True) as client:
        assert await client.list_runs() == []
    async with connect(empty_database) as client:
        assert await client.definitions() == []


def test_settings_that_cannot_be_are_refused_at_the_call(monkeypatch: pytest.MonkeyPatch) -> None:
    wrong: Any = {"shcema": "x"}
    with pytest.raises(TypeError, match=r"connect\(\) has no option 'shcema'; did you mean 'schema'"):
        connect("", **wrong)
    with pytest.raises(InvalidSetting, match="give one"):
        connect("postgresql:///x", home="y")
    monkeypatch.setenv("CONTINUUM_MIGRATE", "maybe")
    with pytest.raises(InvalidSetting, match="CONTINUUM_MIGRATE is 'maybe'"):
        connect()


async def test_what_is_no_database_is_one_clear_error() -> None:
    for url, error in (
        ("mysql://host/x", InvalidSetting),
        ("", InvalidSetting),
        ("postgresql://someone:secret@127.0.0.1:1/none?connect_timeout=2", DatabaseUnreachable),
    ):
        with pytest.raises(error) as caught:
            async with connect(url):
                pass
        assert "secret" not in str(caught.value)


async def test_an_error_in_the_block_comes_out_as_it_is(database: str) -> None:
    with pytest.raises(KeyError, match="mine"):
        async with connect(database, migrate=False):
            raise KeyError("mine")


async def test_a_client_says_where_it_cannot_work(client: Client, database: str) -> None:
    async with connect(database, migrate=False) as closed:
        run = closed.get_run("r")
    with pytest.raises(RuntimeError, match="its connect"):
        await closed.start(audit_flow)
    with pytest.raises(RuntimeError, match="this client is closed"):
        await run.result()
    with pytest.raises(RuntimeError, match="another event loop"):
        await asyncio.to_thread(asyncio.run, client.list_runs())


async def test_waiting_ends_with_the_client(database: str) -> None:
    async with connect(database, migrate=False) as client:
        run = await client.start(audit_flow)
        waiting = asyncio.ensure_future(run.result())
        await asyncio.sleep(0)
    with pytest.raises(DatabaseUnreachable, match="closed"):
        await soon(waiting)


async def test_a_worker_gets_a_journal_of_its_own_in_the_same_place(client: Client, database: str) -> None:
    async with client.open_journal() as first, client.open_journal() as second:
        assert isinstance(first, PostgresJournal)
        assert first is not second
        await first.register("one", 10, {})
        await second.register("two", 10, {})
        run = await client.start(order_flow, Order("o1"), id="r")
        await complete(second, "r")
        assert await soon(run.result()) == Receipt("o1")
    assert select(database, "select worker_id from continuum.workers order by 1") == [("one",), ("two",)]


def test_a_workflow_that_uses_a_client_is_told_what_to_use_instead(database: str) -> None:
    async def connected() -> Client:
        async with connect(database, migrate=False) as client:
            return client

    client = asyncio.run(connected())

    @workflow
    async def starts_runs(number: int) -> str:
        try:
            await client.start(audit_flow)
        except WorkflowMisuse as error:
            return str(error)
        return "not refused"

    assert "child()" in Run(starts_runs, 1).result


def test_importing_continuum_brings_neither_the_driver_nor_pydantic() -> None:
    code = "import sys, continuum; print([name for name in ('psycopg', 'pydantic') if name in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={**os.environ}
    )
    assert done.stdout.strip() == "[]"
    assert continuum.connect is connect
