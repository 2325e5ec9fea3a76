"""Large things: results that travel by reference, commits of thousands of rows, and bounds on what waits."""

from __future__ import annotations

import asyncio
from collections import Counter

import psycopg
import pytest

from continuum._core.effects import NewRun
from continuum._journal import flusher
from continuum._journal.batch import Group
from continuum._journal.commit import Committed, Complete, Fenced, Passivate, Rejected
from tests.journal.harness import (
    KID,
    begin,
    child,
    claim,
    entry,
    outcome,
    root,
    select,
    signal,
    soon,
    turn,
    until,
    waiting_for_a_lock,
    worker,
    write,
)
from tests.journal.races.stepper import Stepper

LARGE = b'"' + b"x" * 1_000_001 + b'"'
WHOLE = b'{"result":%b}' % LARGE


async def test_a_large_result_of_a_child_is_kept_once_and_read_whole(database: str) -> None:
    async with worker(database) as journal:
        (run,) = await begin(journal)
        await write(journal, turn(run, children=(child("r", "k"), child("r", "j")), claimed=2))
        kids = {lease.run_id: lease for lease in await journal.leases() if lease.run_id != "r"}
        for kid in await journal.reclaim(list(kids.values())):
            result = LARGE if kid.run_id == "r/k" else b"1"
            await write(journal, turn(kid, status=Complete(result), messages=(outcome(kid.run_id, result),)))
        kept = select(database, "select key, payload is null from continuum.inbox order by id")
        assert sorted(kept) == [("j", False), ("k", True)]
        mail = {found.key: found for found in (await journal.mail(["r"]))["r"]}
        assert mail["k"].payload == WHOLE
        recorded = (entry("k", WHOLE, "child_completed"), entry("j", b'{"result":1}', "child_completed"))
        await write(journal, turn(run, entries=recorded, consumed=tuple(found.id for found in mail.values())))
        assert select(database, "select seq, payload is null from continuum.events order by seq") == [
            (1, True),
            (2, False),
        ]
        (loaded,) = await journal.load([run])
        assert (loaded.entries, loaded.mail, loaded.problem) == (recorded, (), None)


async def test_only_results_of_children_travel_by_reference(database: str) -> None:
    async with worker(database) as journal:
        (run,) = await begin(journal)
        await write(journal, turn(run, entries=(entry("s", LARGE and WHOLE, "side_effect_recorded"),)))
        await journal.send([signal("r", LARGE)])
        (loaded,) = await journal.load([run])
        assert loaded.entries[0].payload == WHOLE
        assert loaded.mail[0].payload == b'{"payload":%b}' % LARGE


def many(parent: str, count: int) -> tuple[NewRun, ...]:
    return tuple(child(parent, f"k{number:05}") for number in range(count))


async def test_a_commit_of_thousands_of_children_lets_its_neighbours_go_on(database: str) -> None:
    hooks = Stepper()
    async with worker(database, hooks=hooks) as journal:
        large, neighbour = await begin(journal, root("large"), root("neighbour"))
        children = many("large", 10_000)
        entries = tuple(entry(kid.key, b"{}", "child_started") for kid in children)
        stop = hooks.stop_at("large.written")
        writing = asyncio.ensure_future(
            journal.commit(
                turn(large, entries=entries, children=children, claimed=3, status=Passivate(None, "kids"))
            )
        )
        await stop.reached()
        for number in range(1, 20):
            await write(journal, turn(neighbour, seq=number, entries=(entry(),)))
        assert (await journal.beat()).alive
        assert select(database, "select count(*) from continuum.runs") == [(2,)]
        stop.let_go()
        (done,) = await soon(writing)
        assert done == Committed(done.at_us)
        counted = "select count(*), count(*) filter (where lease_owner = 'w') from continuum.runs where depth = 1"
        assert select(database, counted) == [(10_000, 3)]
        assert select(database, "select count(*) from continuum.events where run_id = 'large'") == [(10_000,)]
        assert hooks.visits["large.begin"] == 1


async def test_a_large_commit_that_is_fenced_or_refused_writes_nothing(database: str) -> None:
    async with worker(database) as journal:
        run, other = await begin(journal, root("r"), root("s"))
        entries = tuple(entry(f"a{number}") for number in range(5_000))
        refused = (*entries[:-1], entry("last", b"{"))
        (found,) = await soon(journal.commit(turn(run, entries=refused)))
        assert isinstance(found, Rejected)
        await journal.release([lease for lease in await journal.leases() if lease.run_id == "r"])
        together = await soon(journal.commit(turn(run, entries=entries), turn(other, entries=(entry(),))))
        assert [type(found).__name__ for found in together] == ["Fenced", "Undone"]
        assert select(database, "select count(*) from continuum.events") == [(0,)]
        await write(journal, turn(other, entries=entries))


async def test_a_cancel_beside_a_large_commit_fences_it(database: str) -> None:
    hooks = Stepper()
    async with worker(database, "a", hooks=hooks) as journal, worker(database, "b") as other:
        (run,) = await begin(journal)
        stop = hooks.stop_at("large.begin")
        writing = asyncio.ensure_future(journal.commit(turn(run, children=many("r", 3_000))))
        await stop.reached()
        assert (await other.cancel("r", "")).runs == 1
        stop.let_go()
        assert await soon(writing) == (Fenced(),)
        assert select(database, "select count(*) from continuum.runs") == [(1,)]


async def test_a_batch_is_bounded_in_rows_and_bytes(database: str) -> None:
    hooks = Stepper()
    async with worker(database, hooks=hooks) as journal:
        runs = await begin(journal, *(root(f"r{number:03}") for number in range(60)))
        await write(journal, turn(runs[0]))
        before = Counter(hooks.visits)
        await asyncio.gather(*(write(journal, turn(run, entries=tuple(map(entry, "abcdefghi")))) for run in runs))
        assert hooks.visits["flush.begin"] - before["flush.begin"] == 2, "600 rows, 500 a batch"
        before = Counter(hooks.visits)
        weight = entry("heavy", b'"' + b"x" * 300_000 + b'"')
        await asyncio.gather(*(write(journal, turn(run, seq=10, entries=(weight,))) for run in runs[:9]))
        assert hooks.visits["flush.begin"] - before["flush.begin"] == 3, "300 kB each, 1 MB a batch"
        before = Counter(hooks.visits)
        await asyncio.gather(*(write(journal, turn(run, seq=11)) for run in runs))
        assert hooks.visits["flush.begin"] - before["flush.begin"] == 1


async def test_who_takes_turns_waits_while_too_much_is_to_be_written(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert flusher.ROOM_BYTES == 32_000_000
    monkeypatch.setattr(flusher, "ROOM_BYTES", 320_000)
    async with worker(database) as journal:
        runs = await begin(journal, *(root(f"r{number:03}") for number in range(13)))
        weight = entry("heavy", b'"' + b"x" * 30_000 + b'"')
        await soon(journal.room())
        waiting = [journal.submit(turn(run, entries=(weight,))) for run in runs[:11]]
        room = asyncio.ensure_future(journal.room())
        late = asyncio.ensure_future(journal.commit(turn(runs[12])))
        await asyncio.sleep(0)
        assert not room.done()
        await soon(asyncio.gather(room, *waiting))
        assert type((await soon(late))[0]).__name__ == "Committed"


async def test_of_a_herd_that_waits_for_room_as_many_pass_as_fit(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """200 committers of 700 kB each had 139 MB in memory at once; here all is a hundredth."""
    monkeypatch.setattr(flusher, "ROOM_BYTES", 320_000)
    sizes: list[int] = []
    enter = flusher.Flusher._enter

    def weighed(self: flusher.Flusher, group: Group) -> None:
        enter(self, group)
        sizes.append(self._size)

    monkeypatch.setattr(flusher.Flusher, "_enter", weighed)
    async with worker(database) as journal:
        await journal.start([root(f"r{number:03}") for number in range(200)])
        runs = (await claim(journal, limit=200)).values()
        weight = entry("heavy", b'"' + b"x" * 7_000 + b'"')
        outcomes = await soon(asyncio.gather(*(journal.commit(turn(run, entries=(weight,))) for run in runs)))
        assert {type(found) for (found,) in outcomes} == {Committed}
    assert len(sizes) == 200
    assert 300_000 < max(sizes) < 320_000 + 8_000


async def test_a_caller_that_gives_up_gives_its_room_back(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flusher, "ROOM_BYTES", 320_000)
    async with worker(database) as journal:
        (run,) = await begin(journal)
        weight = entry("heavy", b'"' + b"x" * 330_000 + b'"')
        journal.submit(turn(run, entries=(weight,))).cancel()
        await soon(journal.room())


async def test_a_run_held_by_a_transaction_stalls_nobody_else(database: str) -> None:
    async with worker(database) as journal:
        held, free, large = await begin(journal, root("held"), root("free"), root("large"))
        with psycopg.connect(database) as somebody:
            somebody.execute("select 1 from continuum.runs where run_id in ('held', 'large') for update")
            stuck = asyncio.ensure_future(journal.commit(turn(held, entries=(entry(),))))
            also = asyncio.ensure_future(journal.commit(turn(large, children=many("large", 2_001))))
            await until(waiting_for_a_lock(database, "flush"))
            for number in range(1, 6):
                await write(journal, turn(free, seq=number, entries=(entry(),)))
            assert not stuck.done()
            assert not also.done()
        for found in await soon(asyncio.gather(stuck, also)):
            assert isinstance(found[0], Committed)
        assert len(await claim(journal, KID, limit=5)) == 5
