"""Hints: the worker's own runs are told without Postgres, and what cannot be told stops nothing that can."""

from __future__ import annotations

import logging

import pytest

from continuum._journal import hints
from continuum._journal.commit import Passivate
from tests.journal.harness import Heard, begin, claim, listening, root, select, signal, turn, until, worker, write
from tests.journal.races.stepper import Stepper

DUE = "select run_id from continuum.runs where lease_owner is null and next_wakeup_at <= now()"


async def due(url: str, run_id: str) -> None:
    async def is_due() -> bool:
        return (run_id,) in select(url, DUE)

    await until(is_due)


async def test_mail_between_runs_of_one_worker_is_told_without_postgres(database: str) -> None:
    hooks = Stepper()
    async with worker(database, hooks=hooks) as journal:
        sender, *_ = await begin(journal, root("from"), root("to"), root("gone"))
        gone = [lease for lease in await journal.leases() if lease.run_id == "gone"]
        await journal.release(gone)
        heard = await listening(journal)
        stop = hooks.stop_at("poke.begin")
        await write(journal, turn(sender, messages=(signal("to"), signal("gone"))))
        wakes = [name for kind, name in heard.hints if kind == "wake"]
        assert wakes == ["to"], "at once, when the commit is told"
        stop.let_go()


async def test_the_worker_that_sent_hears_no_notification_of_it(database: str) -> None:
    async with worker(database, "a") as one, worker(database, "b") as other:
        here, there = await listening(one), await listening(other)
        sender, *_ = await begin(one, root("from"), root("to"))
        await write(one, turn(sender, messages=(signal("to"),)))
        await one.start([root("last", "last")])
        await there.until("ready", "last:1")
        assert ("wake", "to") not in there.hints
        assert here.hints.count(("wake", "to")) == 1


async def test_a_commit_that_was_void_tells_nobody(database: str) -> None:
    async with worker(database) as journal:
        stale, *_ = await begin(journal, root("from"), root("to"))
        heard = Heard(journal)
        await journal.commit(turn(stale, messages=(signal("to"),), consumed=(10**12,)))
        assert ("wake", "to") not in heard.hints


async def test_runs_are_armed_though_postgres_refuses_to_notify(
    database: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(hints, "LARGEST_PAYLOAD", 20_000)  # Postgres takes 8,000
    hooks = Stepper()
    async with worker(database, hooks=hooks) as journal:
        (run,) = await begin(journal)
        await write(journal, turn(run, status=Passivate()))
        stop = hooks.stop_at("poke.begin")
        journal._hints.say("ended", ["x" * 9_000])
        await stop.reached()
        with caplog.at_level(logging.ERROR, "continuum.journal"):
            await journal.send([signal("r")])
            stop.let_go()
            await due(database, "r")
        assert [record.levelname for record in caplog.records] == ["ERROR"], "said once"


async def test_runs_are_armed_though_not_even_that_can_be_told(
    database: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    hooks = Stepper()
    async with worker(database, hooks=hooks) as journal:
        (run,) = await begin(journal)
        await write(journal, turn(run, status=Passivate()))
        stop = hooks.stop_at("poke.begin")
        journal._hints.say("ended", ["somebody"])
        await stop.reached()
        monkeypatch.setitem(journal._hints._channels, "ready", "x" * 200)  # Postgres takes 63
        with caplog.at_level(logging.ERROR, "continuum.journal"):
            await journal.send([signal("r")])
            stop.let_go()
            await due(database, "r")
        assert [record.levelname for record in caplog.records] == ["ERROR"], "said once"


async def test_names_that_no_table_holds_keep_no_other_from_being_told(
    database: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with worker(database, "a") as one, worker(database, "b") as other:
        heard = await listening(other)
        (run,) = await begin(one)
        await write(one, turn(run, status=Passivate()))
        await one.send([signal("r")])
        with caplog.at_level(logging.INFO, "continuum.journal"):
            one.arm(["nul\0", "\ud800", "r"])
            one._hints.say("ready", ["nul\0", "\ud800", "odd:1"])
            await heard.until("ready", "odd:1")
            await due(database, "r")
        assert caplog.records == []
        assert set(await claim(other)) == {"r"}
