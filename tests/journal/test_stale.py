"""Commits of a copy that is behind: it consumes mail that is journaled already, or its worker has a new id."""

from __future__ import annotations

import asyncio

import pytest

from continuum._core.effects import NewRun
from continuum._core.entries import Entry
from continuum._journal.commit import Committed, Fenced, Stale, Undone
from tests.journal.harness import begin, child, entry, root, select, signal, soon, task, turn, worker, write
from tests.journal.races.stepper import Stepper

GONE = 10**12


def many(count: int = 2_500) -> tuple[Entry, ...]:
    return tuple(entry(f"a{number}") for number in range(count))


@pytest.mark.parametrize("large", [False, True])
async def test_a_stale_commit_writes_nothing_at_all(database: str, large: bool) -> None:
    async with worker(database) as journal:
        run, _ = await begin(journal, root("r"), root("s"))
        await journal.send([signal("r", b"1")])
        ((mail,),) = (await journal.mail(["r"])).values()
        kids: tuple[NewRun, ...] = (child("r", "k"),)
        everything = turn(
            run,
            entries=many() if large else (entry(),),
            consumed=(mail.id, GONE),
            children=kids,
            messages=(signal("s"), signal("r/k")),
            tasks=(task(),),
            published=b"1",
        )
        assert await soon(journal.commit(everything)) == (Stale(),)
        counts = "select (select count(*) from continuum.runs), (select count(*) from continuum.events), \
                  (select count(*) from continuum.tasks), (select count(*) from continuum.inbox)"
        assert select(database, counts) == [(2, 0, 0, 1)]
        assert select(database, "select published from continuum.runs where run_id = 'r'") == [(None,)]
        await write(journal, turn(run, entries=(entry(),), consumed=(mail.id,)))


async def test_a_large_group_with_a_stale_member_is_undone(database: str) -> None:
    async with worker(database) as journal:
        run, mate = await begin(journal, root("r"), root("mate"))
        group = journal.commit(turn(mate, entries=many()), turn(run, consumed=(GONE,)))
        assert await soon(group) == (Undone(), Stale())
        assert select(database, "select count(*) from continuum.events") == [(0,)]
        await write(journal, turn(mate, entries=(entry(),)))


async def test_a_stale_commit_costs_its_neighbours_of_the_batch_nothing(database: str) -> None:
    hooks = Stepper()
    async with worker(database, hooks=hooks) as journal:
        runs = await begin(journal, *(root(f"r{number}") for number in range(20)))
        await write(journal, turn(runs[0]))
        before = hooks.visits["flush.begin"]
        commits = [turn(run, entries=(entry(),), consumed=(GONE,) if run is runs[7] else ()) for run in runs]
        outcomes = await soon(asyncio.gather(*map(journal.commit, commits)))
        assert [type(found) for (found,) in outcomes] == [Committed] * 7 + [Stale] + [Committed] * 12
        assert hooks.visits["flush.begin"] == before + 1


async def test_a_fenced_commit_that_is_stale_too_is_fenced(database: str) -> None:
    async with worker(database) as journal:
        run, large = await begin(journal, root("r"), root("s"))
        await journal.release(await journal.leases())
        assert await soon(journal.commit(turn(run, consumed=(GONE,)))) == (Fenced(),)
        assert await soon(journal.commit(turn(large, entries=many(), consumed=(GONE,)))) == (Fenced(),)


async def test_mail_read_while_its_commit_was_under_way_is_not_journaled_twice(database: str) -> None:
    hooks = Stepper()
    async with worker(database, hooks=hooks) as journal:
        (run,) = await begin(journal)
        await journal.send([signal("r")])
        (mail,) = (await journal.mail(["r"]))["r"]
        stop = hooks.stop_at("flush.begin")
        writing = journal.submit(turn(run, entries=(entry("go"),), consumed=(mail.id,)))
        await stop.reached()
        assert (await journal.mail(["r"]))["r"] == (mail,), "it is there until the commit has come through"
        stop.let_go()
        await soon(writing)
        again = turn(run, seq=2, entries=(entry("go"),), consumed=(mail.id,))
        assert await soon(journal.commit(again)) == (Stale(),)
        assert select(database, "select seq from continuum.events") == [(1,)]


async def test_what_waits_under_an_old_id_is_fenced_by_a_new_one(database: str) -> None:
    hooks = Stepper()
    async with worker(database, "old", hooks=hooks) as journal:
        sent, waits = await begin(journal, root("r"), root("s"))
        stop = hooks.stop_at("flush.begin")
        first = journal.submit(turn(sent, entries=(entry(),)))
        await stop.reached()
        second = journal.submit(turn(waits, entries=(entry(),)))
        await journal.register("new", 10, {})
        assert await soon(second) == (Fenced(),)
        stop.let_go()
        assert await soon(first) == (Fenced(),), "the leases are the old id's"
        assert select(database, "select count(*) from continuum.events") == [(0,)]
