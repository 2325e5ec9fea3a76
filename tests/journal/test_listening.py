"""Hints and waiting: what is heard, what happens when nothing is, and that nothing depends on it."""

from __future__ import annotations

import asyncio
import logging
import os
import socket

import pytest

from continuum._core.failure import encode_failure
from continuum._journal import ends, listener
from continuum._journal.commit import Complete, Fail, Passivate
from continuum._journal.connections import Connection
from continuum._journal.hints import LARGEST_PAYLOAD, payloads
from continuum._journal.journal import PostgresJournal
from continuum._journal.listener import Listener
from continuum.errors import Failure, RunNotFound
from tests.journal.harness import (
    begin,
    child,
    claim,
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
from tests.journal.proxy import proxied


async def test_every_kind_of_hint_reaches_another_process(database: str) -> None:
    async with worker(database, "a") as one, PostgresJournal(database).open() as client:
        heard = await listening(client)
        run, waits = await begin(one, root("r"), root("waits"))
        await heard.until("ready", "flow:1")
        await write(one, turn(waits, status=Passivate()))
        await write(one, turn(run, children=(child("r", "k"),), messages=(signal("waits"),)))
        await heard.until("ready", "kid:1")
        await heard.until("wake", "waits")
        await one.cancel("r", "")
        for kind, name in (("ended", "r"), ("ended", "r/"), ("fenced", "a")):
            await heard.until(kind, name)


async def test_a_listener_that_was_cut_off_says_that_something_may_be_missing(database: str) -> None:
    async with PostgresJournal(database).open() as journal:
        heard = await listening(journal)
        for _ in range(3):
            heard.hints.clear()
            assert strike(database, "listen") == 1
            await heard.until("gap")

            async def hears_again() -> bool:
                return journal.hears

            await until(hears_again)
        await journal.start([root()])
        await heard.until("ready", "flow:1")


async def test_a_listener_that_was_cut_off_leaves_alone_who_has_its_sockets_number_next(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """libpq closes the socket when it reads that the server has ended; whoever opens one may have that number."""
    loop, read, rung = asyncio.get_running_loop(), Listener._read, asyncio.Event()
    ours, theirs = socket.socketpair()
    numbers: list[int] = []

    def read_and_open_another(self: Listener, connection: Connection, number: int) -> None:
        read(self, connection, number)
        if self._broke is not None and not numbers:
            with pytest.raises(OSError, match="Bad file descriptor"):
                os.fstat(number)
            numbers.append(os.dup2(ours.fileno(), number))
            loop.add_reader(number, rung.set)

    monkeypatch.setattr(Listener, "_read", read_and_open_another)
    with ours, theirs:
        async with PostgresJournal(database).open() as journal:
            heard = await listening(journal)
            heard.hints.clear()
            assert strike(database, "listen") == 1
            await heard.until("gap")
            theirs.send(b"x")
            await soon(rung.wait())
            loop.remove_reader(numbers[0])
            os.close(numbers[0])


async def test_swallowed_notifications_are_reported_once(
    database: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(listener, "ANSWER_S", 0.05)
    monkeypatch.setattr(listener, "PROBE_S", 0.05)
    caplog.set_level(logging.WARNING, "continuum.journal")
    async with proxied(database) as proxy:
        proxy.deaf = True
        async with worker(proxy.url) as journal:
            (run,) = await begin(journal)

            async def reported() -> bool:
                return any("notifications do not come through" in record.message for record in caplog.records)

            await until(reported)
            assert not journal.hears
            for _ in range(5):
                strike(database, "listen")
                await asyncio.sleep(0.02)
            waiting = asyncio.ensure_future(journal.wait("r"))
            await write(journal, turn(run, status=Complete(b"1")))
            assert (await soon(waiting)).state == "completed", "polled instead"
            proxy.deaf = False

            async def hears() -> bool:
                return journal.hears

            await until(hears)
    told = [record for record in caplog.records if "notifications" in record.message]
    assert len(told) == 1
    assert "CONTINUUM_LISTEN_URL" in told[0].message


# --- waiting


async def test_many_who_wait_share_their_questions(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    async with worker(database) as journal:
        runs = await begin(journal, *(root(f"r{number}") for number in range(50)))
        await listening(journal)
        read = journal._ends._read

        async def counted(names: object) -> object:
            asked.append(1)
            return await read(names)  # type: ignore[arg-type]

        monkeypatch.setattr(journal._ends, "_read", counted)
        waiting = [asyncio.ensure_future(journal.wait(run.run_id)) for run in runs for _ in range(10)]
        boom = Fail(encode_failure(Failure("Boom", "")))
        await write(journal, *(turn(run, status=boom) for run in runs))
        assert {end.state for end in await soon(asyncio.gather(*waiting))} == {"failed"}
        assert len(asked) < 10
        assert journal._ends._waiting == {}


async def test_who_gives_up_waiting_leaves_nothing(database: str) -> None:
    async with worker(database) as journal:
        await begin(journal)
        waiting = [asyncio.ensure_future(journal.wait("r")) for _ in range(5)]
        await asyncio.sleep(0)
        waiting[0].cancel()
        await asyncio.gather(waiting[0], return_exceptions=True)
        await journal.cancel("r", "")
        assert {end.state for end in await soon(asyncio.gather(*waiting[1:]))} == {"cancelled"}
        assert journal._ends._waiting == {}


async def test_a_run_that_is_missing_or_goes_missing_is_not_found(database: str) -> None:
    async with worker(database) as journal:
        with pytest.raises(RunNotFound, match="'gone'"):
            await soon(journal.wait("gone"))
        await begin(journal)
        waiting = asyncio.ensure_future(journal.wait("r"))
        await asyncio.sleep(0)
        select(database, "delete from continuum.runs")
        with pytest.raises(RunNotFound):
            await soon(waiting)


async def test_without_a_single_notification_everything_is_found_by_asking(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ends, "DEAF_POLL_S", 0.01)
    async with proxied(database) as proxy:
        proxy.deaf = True
        async with worker(proxy.url, "a") as one, worker(proxy.url, "b") as other:
            (run,) = await begin(one)
            await write(one, turn(run, status=Passivate()))
            await other.send([signal("r")])
            again: dict[str, object] = {}

            async def claimed() -> bool:
                again.update(await claim(other))
                return bool(again)

            await until(claimed)
            waiting = asyncio.ensure_future(one.wait("r"))
            await write(other, turn(again["r"], status=Complete(b"1")))  # type: ignore[arg-type]
            assert (await soon(waiting)).state == "completed"


# --- payloads


def test_names_are_packed_into_payloads_that_postgres_takes() -> None:
    names = [f"run-{number}/é" for number in range(5_000)] + ["x" * LARGEST_PAYLOAD, "last"]
    packed = list(payloads(names))
    assert max(len(text.encode()) for text in packed) <= LARGEST_PAYLOAD
    assert "\n".join(packed).split("\n") == [*names[:-2], "last"]
    assert list(payloads([])) == []
