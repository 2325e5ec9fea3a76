"""The sweep: its cursor (15), and that nothing is lost when every NOTIFY and every POKE is (18)."""

from __future__ import annotations

import asyncio
from random import Random

import pytest

from continuum._journal.commit import Commit, Complete, Continue, Park, Passivate, Swept
from tests.journal.races.sides import FLOW, Session, Worker, entry, message, session, turn, working
from tests.journal.races.stepper import before_deadline


async def _walk(worker: Worker, budget: int, parts: int = 1000) -> list[Swept]:
    """Sweep until the end of the walk."""
    found: list[Swept] = []
    while not found or not found[-1].finished:
        swept = await worker.journal.sweep(every_s=0, budget=budget)
        assert swept is not None
        found.append(swept)
        assert len(found) <= parts, found
    return found


async def _mail(db: Session, *run_ids: str, times: int = 1) -> None:
    sql = """insert into continuum.inbox (run_id, type, key, payload)
             select r, 'signal_received', n::text, '{}' from unnest($1::text[]) r, generate_series(1, $2::int) n"""
    await db.rows(sql, list(run_ids), times)


async def _unserved(db: Session) -> set[str]:
    """Runs with mail that nobody holds and nobody would claim."""
    sql = """select r.run_id from continuum.runs r where r.lease_owner is null
             and r.state in ('pending', 'running', 'suspended') and coalesce(r.next_wakeup_at > now(), true)
             and exists (select 1 from continuum.inbox i where i.run_id = r.run_id)"""
    return {row[0] for row in await db.rows(sql)}


async def test_a_walk_in_small_parts_arms_every_run_with_mail(raced: str, db: Session) -> None:
    async with working(raced, "w") as (worker,):
        runs = [f"r{number:02}" for number in range(25)]
        for run_id in runs:
            await db.put(run_id)
        await db.put("resident", "w")
        await db.put("parked", state="parked")
        await _mail(db, *runs, "resident", "parked", times=7)  # a part counts runs, not messages
        parts = await _walk(worker, 4, 8)
        assert [part.armed for part in parts] == [
            3,
            4,
            4,
            4,
            4,
            4,
            2,
        ]  # the parked run is the first, the resident one the last
        assert not await _unserved(db)
        claimed = {run.run_id for run in await worker.journal.claim([FLOW], 100)}
        assert claimed == set(runs)
        assert (await _walk(worker, 4))[0].armed == 0


@pytest.mark.parametrize("count", [0, 1, 4, 5, 8])
async def test_a_walk_ends_at_any_number_of_runs(raced: str, db: Session, count: int) -> None:
    async with working(raced, "w") as (worker,):
        for number in range(count):
            await db.put(f"r{number}")
            await _mail(db, f"r{number}")
        parts = await _walk(worker, 4)
        assert sum(part.armed for part in parts) == count
        assert len(parts) == count // 4 + 1
        assert await db.one("select cursor from continuum.chores where name = 'sweep'") == ""


async def test_runs_that_come_and_go_between_parts_are_armed_within_the_next_walk(raced: str, db: Session) -> None:
    chance = Random(7)
    async with working(raced, "w") as (worker,):
        runs = [f"{chance.randrange(10**6):06}" for _ in range(60)]
        for run_id in dict.fromkeys(runs):
            await db.put(run_id)
        await _mail(db, *dict.fromkeys(runs[:30]))
        for run_id in runs[30:]:
            swept = await worker.journal.sweep(every_s=0, budget=5)
            assert swept is not None
            await _mail(db, run_id)
            gone = chance.choice(runs[:30])
            await db.rows("delete from continuum.inbox where run_id = $1", gone)
        await _walk(worker, 5)  # to the end of this walk
        await _walk(worker, 5)
        assert not await _unserved(db)


async def test_the_cursor_stands_on_a_run_whose_mail_is_gone(raced: str, db: Session) -> None:
    async with working(raced, "w") as (worker,):
        for run_id in "abcd":
            await db.put(run_id)
        await _mail(db, *"abcd")
        assert await worker.journal.sweep(every_s=0, budget=2) == Swept(2, 0, False)
        await db.rows("delete from continuum.inbox where run_id in ('a', 'b', 'c')")
        await db.rows("delete from continuum.runs where run_id = 'b'")
        assert await worker.journal.sweep(every_s=0, budget=2) == Swept(1, 0, True)


async def test_the_chore_is_done_by_one_worker_at_a_time(raced: str, db: Session) -> None:
    async with working(raced, "a", "b", "c", "d") as team:
        await db.put("r")
        await _mail(db, "r")
        found = await asyncio.gather(*(worker.journal.sweep(every_s=30) for worker in team))
        assert sorted(found, key=lambda swept: swept is None) == [Swept(1, 0, True), None, None, None]


async def test_a_second_worker_waits_for_the_first_to_sweep_and_gets_nothing(raced: str, db: Session) -> None:
    async with working(raced, "b") as (second,), session(raced) as first:
        await first.begin()
        assert await first.run("sweep", every=30, budget=10) == [(0, 0, True, [])]
        sweep = asyncio.ensure_future(second.journal.sweep(every_s=30))
        await first.blocks()
        await first.commit()
        assert await before_deadline(sweep, "the second sweep") is None


async def test_a_second_worker_goes_on_behind_the_part_that_it_waited_for(raced: str, db: Session) -> None:
    async with working(raced, "b") as (second,), session(raced) as first:
        for run_id in "abc":
            await db.put(run_id)
        await _mail(db, *"abc")
        await first.begin()
        assert await first.run("sweep", every=30, budget=2) == [(2, 0, False, ["flow:1"])]
        sweep = asyncio.ensure_future(second.journal.sweep(every_s=30, budget=2))
        await first.blocks()
        await first.commit()
        assert await before_deadline(sweep, "the second sweep") == Swept(1, 0, True)
        assert await db.one("select cursor from continuum.chores where name = 'sweep'") == ""


async def test_a_sweeper_that_dies_leaves_the_cursor_where_it_was(raced: str, db: Session) -> None:
    async with working(raced, "w") as (worker,):
        for run_id in "abc":
            await db.put(run_id)
        await _mail(db, *"abc")
        assert await worker.journal.sweep(every_s=0, budget=1) == Swept(1, 0, False)
        async with session(raced) as dying:
            await dying.begin()
            assert await dying.run("sweep", every=0, budget=1) == [(1, 0, False, ["flow:1"])]
            await dying.roll_back()
        assert [part.armed for part in await _walk(worker, 1)] == [1, 1, 0]


async def test_two_workers_that_sweep_at_once_leave_nothing_behind(raced: str, db: Session) -> None:
    chance = Random(11)
    async with working(raced, "a", "b") as team:
        runs = [f"r{number:03}" for number in range(120)]
        for run_id in runs:
            await db.put(run_id)
        await _mail(db, *runs)

        async def sweeping(worker: Worker) -> None:
            for _ in range(30):
                await worker.journal.sweep(every_s=0, budget=chance.randint(1, 9))

        await asyncio.gather(*(sweeping(worker) for worker in team))
        await _walk(team[0], 50)
        await _walk(team[0], 50)
        assert not await _unserved(db)


async def test_the_sweep_skips_a_held_row_and_the_next_walk_finds_it(raced: str, db: Session) -> None:
    async with working(raced, "w") as (worker,), session(raced) as holding:
        for run_id in "abc":
            await db.put(run_id)
        await _mail(db, *"abc")
        await holding.begin()
        await holding.hold("b")
        assert sum(part.armed for part in await _walk(worker, 2)) == 2
        await holding.roll_back()
        assert sum(part.armed for part in await _walk(worker, 2)) == 1


async def test_the_sweep_drops_mail_of_ended_runs_and_no_other(raced: str, db: Session) -> None:
    async with working(raced, "w") as (worker,):
        for run_id in ("ended", "live"):
            await db.put(run_id, "w")
        await db.put("parked", state="parked")
        await worker.journal.commit(turn("ended", status=Complete(b"1")))
        await _mail(db, "ended", "live", "parked", "never was", times=3)
        assert await worker.journal.sweep(every_s=0) == Swept(0, 6, True)
        assert len(await db.inbox_of("live")) == len(await db.inbox_of("parked")) == 3


# --- every NOTIFY dropped, and every POKE


@pytest.mark.parametrize("receiver", ["suspended", "resident", "passivating", "continuing", "parked", "claimed"])
async def test_without_any_hint_a_message_is_served_by_polls_and_one_sweep(
    raced: str, db: Session, receiver: str
) -> None:
    async with working(raced, "s", "r") as (sender, worker):
        for one in (sender, worker):
            one.stepper.never_pass("poke.begin")
        await db.put("from", "s")
        await db.put("to", None if receiver in ("suspended", "claimed") else "r", due=receiver == "claimed")
        token = 1
        await sender.journal.commit(turn("from", messages=(message("to", "m"),)))
        match receiver:
            case "passivating":
                await worker.journal.commit(turn("to", status=Passivate()))
            case "continuing":
                await worker.journal.commit(turn("to", status=Continue(1, (entry("", kind="run_started"),))))
            case "parked":
                await worker.journal.commit(turn("to", status=Park(b'{"type":"E","message":"m"}')))
                assert await worker.journal.resume("to")
            case _:
                pass
        if receiver in ("suspended", "passivating"):
            assert await worker.journal.claim([FLOW], 1) == []
            swept = await worker.journal.sweep(every_s=0)
            assert swept is not None
            assert swept.armed == 1
        if receiver not in ("resident", "continuing"):
            token = (await worker.claim_one()).token
        assert await worker.journal.residents_with_mail() == ["to"]
        (mail,) = (await worker.journal.mail(["to"]))["to"]
        generation = 2 if receiver == "continuing" else 1
        commit = Commit("to", token, generation, 1, (entry(mail.key),), (mail.id,))
        await worker.journal.commit(commit)
        assert (await db.journal_of("to"))[-1] == "m"
        assert await db.inbox_of("to") == []
