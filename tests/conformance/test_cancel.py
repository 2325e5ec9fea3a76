"""Cancelling: the run, everything below it, and nothing else."""

from __future__ import annotations

import asyncio

import pytest

from continuum._core.effects import Cancellation
from continuum._core.failure import encode_failure
from continuum._journal.commit import Cancel, Complete, Continue, Fail, Fenced, Park, Passivate
from continuum._journal.protocol import Journal
from continuum.errors import Failure, RunNotFound
from tests.conformance.harness import World
from tests.journal.harness import KID, begin, child, claim, entry, root, signal, soon, task, turn, write

BOOM = encode_failure(Failure("Boom", "it went wrong"))
START = entry("", b'{"input":2,"carried":0,"child_deadlines":{}}', "run_started")


async def grow(journal: Journal, levels: int, width: int = 1) -> list[str]:
    """Start a run with ``levels`` of children below it, all held by the journal's worker; return their ids."""
    above = await begin(journal)
    ids = ["r"]
    for _ in range(levels):
        await write(
            journal,
            *(
                turn(run, children=tuple(child(run.run_id, f"k{number}") for number in range(width)))
                for run in above
            ),
        )
        above = list((await claim(journal, KID)).values())
        ids += [run.run_id for run in above]
    return ids


async def test_queued_tasks_are_discarded(world: World) -> None:
    """CA01 queued tasks are discarded."""
    async with world.journal() as journal:
        (run,) = await begin(journal)
        await write(journal, turn(run, tasks=(task("queued"), task("running", "other"))))
        (attempt,) = await journal.claim_tasks("other", 1, 10)
        await journal.cancel("r", "enough")
        assert world.count("tasks") == 0
        assert await journal.claim_tasks("q", 10, 10) == []
        assert await journal.renew_tasks([(attempt, None)], 10) == set()
        assert await journal.report_tasks([(attempt, signal("r"))]) == set()
        assert world.count("inbox") == 0


async def test_timers_are_disarmed(world: World) -> None:
    """CA02 timers disarmed."""
    async with world.journal() as journal:
        (run,) = await begin(journal)
        await write(journal, turn(run, status=Passivate(wakeup_us=1, waiting_for="a timer long due")))
        await journal.cancel("r", "")
        assert await claim(journal) == {}


async def test_a_run_that_no_worker_has_is_cancelled(world: World) -> None:
    """CA03 a suspended run without engine is cancelled."""
    async with world.journal() as journal, world.journal(None) as client:
        pending, suspended, parked = "pending", "suspended", "parked"
        runs = await begin(journal, root(suspended), root(parked))
        await client.start([root(pending)])
        await write(journal, turn(runs[0], status=Passivate()), turn(runs[1], status=Park(BOOM)))
        for run_id in (pending, suspended, parked):
            assert world.state(run_id) == run_id
            assert (await client.cancel(run_id, "no more")).runs == 1
            assert world.state(run_id) == "cancelled"
            assert "no more" in world.error(run_id)


async def test_an_unknown_run_is_not_found(world: World) -> None:
    """CA04 unknown run: RunNotFound."""
    async with world.journal(None) as client:
        await client.start([root("r")])
        for missing in ("r/", "r/k", "R", "", "r\0", "\udc80", "r" * 5000):
            with pytest.raises(RunNotFound):
                await soon(client.cancel(missing, "why"))
        assert world.state("r") == "pending"


@pytest.mark.parametrize(
    ("status", "state"), [(Complete(b"1"), "completed"), (Fail(BOOM), "failed"), (Cancel(BOOM), "cancelled")]
)
async def test_an_ended_run_stays_as_it_is(world: World, status: Complete | Fail | Cancel, state: str) -> None:
    """CA05 ended run: the state is told and nothing changes."""
    async with world.journal() as journal:
        (run,) = await begin(journal)
        await write(journal, turn(run, children=(child("r", "k"),), status=status))
        before = (await journal.ends(["r"]))["r"]
        found = await journal.cancel("r", "too late")
        assert (found.state, found.runs) == (state, 0)
        assert (await journal.ends(["r"]))["r"] == before
        assert world.state("r/k") == "pending", "an abandoned child is not touched either"


async def test_a_run_of_another_live_worker_is_cancelled_and_that_worker_told(world: World) -> None:
    """CA06 a run owned by another live worker is cancelled and that worker stops."""
    async with world.journal("a") as one, world.journal("b") as other:
        (run,) = await begin(one)
        await world.heard["a"].until("gap")
        found = await other.cancel("r", "stop it")
        assert (found.state, found.runs) == ("running", 1)
        assert world.lease("r") == (None, 2)
        await world.heard["a"].until("fenced", "a")
        assert await one.commit(turn(run, entries=(entry(),))) == (Fenced(),)
        assert await one.leases() == []


async def test_who_awaits_a_cancelled_run_or_one_below_it_is_told(world: World) -> None:
    """CA07 awaiters of the run and of descendants wake."""
    async with world.journal("a") as journal, world.journal(None) as client:
        ids = await grow(journal, 2)
        waiting = [asyncio.ensure_future(client.wait(run_id)) for run_id in ids]
        await client.cancel("r", "enough")
        assert [end.state for end in await soon(asyncio.gather(*waiting))] == ["cancelled"] * 3


async def test_cancelling_twice_is_harmless(world: World) -> None:
    """CA11 cancelling a cancelled run is harmless."""
    async with world.journal() as journal:
        ids = await grow(journal, 1, 2)
        first, second = await asyncio.gather(journal.cancel("r", "one"), journal.cancel("r", "two"))
        told = {(found.state, found.runs) for found in (first, second)}
        assert told == {("running", len(ids)), ("cancelled", 0)}
        assert sorted({world.lease(run_id)[1] for run_id in ids}) == [2]


async def test_a_chain_is_cancelled_in_whichever_generation(world: World) -> None:
    """CA12 a chain's run is cancelled whatever its generation."""
    async with world.journal() as journal:
        (run,) = await begin(journal)
        await write(journal, turn(run, children=(child("r", "k"),), status=Continue(1, (START,))))
        assert (await journal.cancel("r", "enough")).runs == 2
        assert world.state("r") == world.state("r/k") == "cancelled"


async def test_a_cascade_reaches_every_level(world: World) -> None:
    """CH05 cancelling the parent cancels every in-flight descendant."""
    async with world.journal() as journal:
        ids = await grow(journal, 3, 3)
        assert len(ids) == 40
        bystander = (await begin(journal, root("r0")))[0]
        assert (await journal.cancel("r", "enough")).runs == 40
        assert {world.state(run_id) for run_id in ids} == {"cancelled"}
        assert {world.lease(run_id) for run_id in ids} == {(None, 2)}
        await write(journal, turn(bystander))


async def test_descendants_say_that_their_parent_was_cancelled(world: World) -> None:
    """CH06 descendants carry error parent_cancelled."""
    async with world.journal() as journal:
        ids = await grow(journal, 2)
        await journal.cancel("r", "the user went home")
        for run_id in ids[1:]:
            assert "parent_cancelled" in world.error(run_id)
            assert "the user went home" in world.error(run_id)
        assert '"cancelled"' in world.error("r")


async def test_nothing_is_journaled_after_a_cancel(world: World) -> None:
    """CH07 no entry is ever appended to a run after its cancel commits, though its engine still runs."""
    async with world.journal("a") as one, world.journal(None) as client:
        runs = await begin(one, *(root(f"r{number}") for number in range(10)))
        stopped: dict[str, int] = {}
        written: dict[str, int] = {run.run_id: 0 for run in runs}

        async def work(number: int) -> None:
            run = runs[number]
            while await one.commit(turn(run, seq=written[run.run_id] + 1, entries=(entry(),))) != (Fenced(),):
                written[run.run_id] += 1

        async def stop(number: int) -> None:
            await client.cancel(f"r{number}", "")
            stopped[f"r{number}"] = len(world.entries(f"r{number}"))

        await soon(
            asyncio.gather(*(work(number) for number in range(10)), *(stop(number) for number in range(10)))
        )
        assert {run_id: len(world.entries(run_id)) for run_id in stopped} == stopped == written


async def test_a_cascade_goes_deeper_than_any_limit(world: World) -> None:
    """CH09 the cascade reaches every live level whatever the setting of the depth."""
    async with world.journal() as journal:
        ids = await grow(journal, 14)
        middle = ids[7]
        (held,) = [lease for lease in await journal.leases() if lease.run_id == middle]
        run = next(iter(await journal.reclaim([held])))
        await write(journal, turn(run, status=Complete(b"1")))
        assert (await journal.cancel("r", "")).runs == 14, "a level that has ended hides none below it"
        assert world.state(middle) == "completed"
        assert world.state(ids[-1]) == "cancelled"


async def test_children_inherit_namespace_attributes_and_trace(world: World) -> None:
    """CH10 namespace and attributes are inherited; trace context too."""
    async with world.journal() as journal:
        trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
        parent = root("r", namespace="shop", attributes=b'{"a":1,"b":[2]}', trace=trace)
        (run,) = await begin(journal, parent)
        await write(
            journal, turn(run, children=(child("r", "k", attributes={"b": 3}), child("r", "j")), claimed=2)
        )
        assert world.inherited("r/k") == ("shop", {"a": 1, "b": 3}, trace)
        assert world.inherited("r/j") == ("shop", {"a": 1, "b": [2]}, trace)


async def test_a_cancelled_child_is_mail_of_its_parent(world: World) -> None:
    """CH04 a child cancelled on its own is told to its parent."""
    async with world.journal() as journal:
        await grow(journal, 1)
        await journal.cancel("r/k0", "not needed")
        ((mail,),) = (await journal.mail(["r"])).values()
        assert (mail.type, mail.key, mail.payload) == ("child_cancelled", "k0", b'{"reason":"not needed"}')


async def test_a_commit_can_cancel_children(world: World) -> None:
    """CH26 parent ends first: the cancel policy ends the child in the parent's own commit."""
    async with world.journal() as journal:
        (run,) = await begin(journal)
        await write(
            journal, turn(run, children=(child("r", "stays"), child("r", "goes", on_parent_close="cancel")))
        )
        ending = turn(run, cancels=(Cancellation("r/goes", "the parent ended"),), status=Complete(b"1"))
        await write(journal, ending)
        assert [world.state(run_id) for run_id in ("r", "r/stays", "r/goes")] == [
            "completed",
            "pending",
            "cancelled",
        ]
        assert await journal.mail(["r"]) == {}
