"""Deleting what nobody needs: whole trees that have ended, and old generations of runs that may be live."""

from __future__ import annotations

import pytest

from continuum._core.effects import Answer
from continuum._journal.commit import Complete, Continue
from continuum._journal.protocol import Journal
from continuum.errors import RunNotFound
from tests.conformance.harness import World
from tests.journal.harness import KID, begin, child, claim, entry, root, signal, task, turn, write

TABLES = ("runs", "events", "inbox", "tasks", "deliveries", "cancellations")
START = entry("", b'{"input":2,"carried":0,"child_deadlines":{}}', "run_started")


async def tree(journal: Journal, run_id: str = "r") -> None:
    """A run with entries, a child with a task, mail that nobody read, and a request to stop."""
    (run,) = await begin(journal, root(run_id))
    await journal.send([signal(run_id, delivery_id="one")])
    await journal.request_cancel(run_id, "", 10)
    kid = child(run_id, "k")
    await write(journal, turn(run, entries=(entry(),), children=(kid,), answers=(Answer("one", b"1"),)))
    (below,) = (await claim(journal, KID)).values()
    await write(journal, turn(below, entries=(entry(),), tasks=(task(),)))


async def test_a_tree_that_has_ended_goes_whole(world: World) -> None:
    """CH28 pruning deletes a tree with all that belongs to it, and nothing else."""
    async with world.journal() as journal:
        await tree(journal, "r1")
        before = {table: world.count(table) for table in TABLES}
        assert set(before.values()) >= {1, 2}
        await tree(journal, "r")
        for run_id in ("r", "r/k"):
            (lease,) = [lease for lease in await journal.leases() if lease.run_id == run_id]
            (run,) = await journal.reclaim([lease])
            await write(journal, turn(run, seq=2, status=Complete(b"1")))
        assert await journal.prune(3_600) == 0, "it has not ended that long ago"
        assert await journal.prune(0) == 1
        assert {table: world.count(table) for table in TABLES} == before
        assert await journal.describe("r") is None
        assert await journal.start([root("r")]) == {"r"}, "its id is free"
        assert world.entries("r") == []


async def test_a_tree_in_which_anything_is_live_stays_whole(world: World) -> None:
    """CH28 an abandoned child that goes on keeps the whole tree; one that has ended stays with its parent."""
    async with world.journal() as journal:
        (run, parent) = await begin(journal, root("r"), root("live"))
        kids = (turn(run, children=(child("r", "k"),)), turn(parent, children=(child("live", "k"),)))
        await write(journal, *kids)
        below = await claim(journal, KID)
        await write(journal, turn(run, status=Complete(b"1")), turn(below["live/k"], status=Complete(b"1")))
        assert await journal.prune(0) == 0
        assert world.count("runs") == 4
        await write(journal, turn(below["r/k"], status=Complete(b"1")))
        assert await journal.prune(0) == 1
        assert world.count("runs") == 2


async def test_pruning_takes_no_more_than_it_may_and_the_oldest_first(world: World) -> None:
    """CH28 a prune is bounded, and says how many roots it deleted."""
    async with world.journal() as journal:
        names = ["c", "a", "b"]
        for name in names:
            (run,) = await begin(journal, root(name))
            await write(journal, turn(run, status=Complete(b"1")))
        assert await journal.prune(0, limit=0) == 0
        assert await journal.prune(0, limit=2) == 2
        assert await journal.describe("b") is not None
        assert await journal.prune(0) == 1
        assert await journal.prune(0) == 0


async def test_a_root_that_somebody_holds_is_left_out(world: World) -> None:
    """CH28 a prune waits for nobody's root."""
    async with world.journal() as journal:
        for run in await begin(journal, root("a"), root("b")):
            await write(journal, turn(run, status=Complete(b"1")))
        with world.hold("a"):
            assert await journal.prune(0) == 1
        assert world.state("a") == "completed"


async def test_old_generations_go_and_the_current_one_never(world: World) -> None:
    """CN10 a live run loses the journals of old generations and goes on beside it."""
    async with world.journal() as journal:
        (run,) = await begin(journal)
        for _ in range(3):
            await write(journal, turn(run, seq=1, entries=(entry("a"), entry("b")), status=Continue(1, (START,))))
            run = run._replace(generation=run.generation + 1)
        await write(journal, turn(run, seq=1, entries=(entry("c"),)))
        assert await journal.prune_generations("r", 9) == 0
        with world.hold("r"):
            assert await journal.prune_generations("r", 3) == 2
        assert await journal.prune_generations("r", 1) == 6
        assert [world.entries("r", number) for number in (1, 2, 3)] == [[], [], []]
        assert [key for _, _, key in world.entries("r", 4)] == ["", "c"]
        assert await journal.prune_generations("r", 1) == 0
        await write(journal, turn(run, seq=2, entries=(entry("d"),)))
        (loaded,) = await journal.load([run])
        assert loaded.problem is None
        for missing in ("nobody", "r\0"):
            with pytest.raises(RunNotFound):
                await journal.prune_generations(missing, 1)
        with pytest.raises(ValueError, match="at least one"):
            await journal.prune_generations("r", 0)
