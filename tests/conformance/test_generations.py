"""Continue-as-new: one run, one generation after the other."""

from __future__ import annotations

import pytest

from continuum._core.effects import Message
from continuum._core.entries import event_of_entry
from continuum._core.events import RunStarted, SignalReceived
from continuum._journal.commit import Complete, Continue, Fenced, Passivate
from tests.conformance.harness import World
from tests.journal.harness import begin, child, claim, entry, outcome, root, signal, soon, task, turn, write

DONE = b'{"name":"work","input":null,"result":1}'
START = entry("", b'{"input":2,"carried":0,"child_deadlines":{}}', "run_started")


async def test_the_next_generation_begins_in_one_commit(world: World) -> None:
    """CN01 same run id, next generation, fresh history, one commit."""
    async with world.journal() as journal:
        (run,) = await begin(journal)
        await write(journal, turn(run, entries=(entry("a"),), status=Continue(2, (START,))))
        assert world.entries("r", 1) == [(1, "activity_completed", "a")]
        assert world.entries("r", 2) == [(0, "run_started", "")]
        assert world.lease("r") == ("w", 1), "the worker goes on with it"
        (lease,) = await journal.leases()
        (again,) = await journal.reclaim([lease])
        assert (again.generation, again.version) == (2, 2)
        (loaded,) = await journal.load([again])
        assert (loaded.entries, loaded.problem) == ((START,), None)


async def test_the_run_has_the_last_generations_result_alone(world: World) -> None:
    """CN02 the final result only."""
    async with world.journal() as journal:
        (run,) = await begin(journal)
        await write(journal, turn(run, status=Continue(1, (START,))))
        assert await journal.ends(["r"]) == {}
        (again,) = await journal.reclaim(await journal.leases())
        await write(journal, turn(again, status=Complete(b'"last"')))
        assert (await soon(journal.wait("r"))).result == b'"last"'


async def test_what_belongs_to_the_run_stays(world: World) -> None:
    """CN04 attributes, namespace, parent link stay."""
    async with world.journal() as journal:
        (run,) = await begin(journal, root(namespace="shop", attributes=b'{"a":1}'))
        await write(journal, turn(run, children=(child("r", "k"),)))
        kid = (await claim(journal))["r/k"]
        await write(journal, turn(kid, status=Continue(1, (START,))))
        assert world.inherited("r/k") == ("shop", {"a": 1}, None)
        (again,) = [found for found in await journal.reclaim(await journal.leases()) if found.run_id == "r/k"]
        assert (again.depth, again.generation) == (1, 2)
        await write(journal, turn(again, status=Complete(b"1"), messages=(outcome("r/k"),)))
        assert [mail.key for mail in (await journal.mail(["r"]))["r"]] == ["k"]


async def test_unread_signals_come_behind_the_start_in_order(world: World) -> None:
    """CN05 unread signals are copied and stay readable, in order."""
    async with world.journal() as journal:
        (run,) = await begin(journal)
        unread = tuple(entry("go", b'{"payload":%d}' % number, "signal_received") for number in range(3))
        start = entry("", b'{"input":2,"carried":3,"child_deadlines":{}}', "run_started")
        await journal.send([signal("r", b"3")])
        await write(journal, turn(run, entries=unread, status=Continue(1, (start, *unread))))
        (again,) = await journal.reclaim(await journal.leases())
        (loaded,) = await journal.load([again])
        first, *rest = [event_of_entry(found) for found in loaded.entries]
        assert isinstance(first, RunStarted)
        assert first.carried == 3
        assert [found.payload for found in rest if isinstance(found, SignalReceived)] == [b"0", b"1", b"2"]
        assert [mail.payload for mail in loaded.mail] == [b'{"payload":3}'], "what was not journaled is mail still"


@pytest.mark.parametrize("lost", [False, True], ids=["reported", "requeued"])
async def test_a_generation_is_not_told_of_an_earlier_ones_activities(world: World, lost: bool) -> None:
    """CN05 an attempt's outcome is for the generation that asked for it, and says so."""
    async with world.journal("w") as journal:
        world.season("w")
        run, other = await begin(journal, root("r"), root("other"))
        for each in (run, other):
            await write(journal, turn(each, tasks=(task(max_attempts=1),)))
        attempts = await journal.claim_tasks("q", 10, 10)
        await write(journal, turn(run, status=Continue(1, (START,))))
        await journal.send([signal("other")])
        if lost:
            world.lapse_tasks()
            assert await journal.requeue_tasks() == 2
        else:
            outcomes = [
                (attempt, Message(attempt.run_id, "activity_completed", "t", DONE)) for attempt in attempts
            ]
            assert len(await journal.report_tasks(outcomes)) == 2
        mail = await journal.mail(["r", "other"])
        assert [(found.key, found.generation) for found in mail["other"]] == [("go", None), ("t", 1)]
        assert "r" not in mail
        assert world.count("tasks") == 0


async def test_mail_of_a_generation_that_ends_before_it_is_read_says_whose_it_is(world: World) -> None:
    """CN05 what came for an earlier generation is told apart, and consumed without an entry."""
    async with world.journal() as journal:
        (run,) = await begin(journal)
        await write(journal, turn(run, tasks=(task(),)))
        (attempt,) = await journal.claim_tasks("q", 10, 10)
        await journal.report_tasks([(attempt, Message("r", "activity_completed", "t", DONE))])
        await write(journal, turn(run, status=Continue(1, (START,))))
        (again,) = await journal.reclaim(await journal.leases())
        (loaded,) = await journal.load([again])
        (mail,) = loaded.mail
        assert (mail.generation, again.generation) == (1, 2)
        await write(journal, turn(again, consumed=(mail.id,)))
        assert await journal.mail(["r"]) == {}


async def test_live_children_can_still_be_cancelled(world: World) -> None:
    """CN06 live children stay cancellable."""
    async with world.journal() as journal:
        (run,) = await begin(journal)
        await write(journal, turn(run, children=(child("r", "k"),)))
        await write(journal, turn(run, status=Continue(1, (START,))))
        assert (await journal.cancel("r/k", "")).runs == 1
        assert [mail.type for mail in (await journal.mail(["r"]))["r"]] == ["child_cancelled"]


async def test_a_cancel_that_came_first_beats_the_continuation(world: World) -> None:
    """CN07 a pending cancel beats the continuation."""
    async with world.journal() as journal:
        (run,) = await begin(journal)
        await journal.cancel("r", "enough")
        assert await journal.commit(turn(run, entries=(entry(),), status=Continue(1, (START,)))) == (Fenced(),)
        assert world.state("r") == "cancelled"
        assert world.entries("r", 2) == []


async def test_a_late_generation_reads_its_own_entries_alone(world: World) -> None:
    """CN09 many generations keep the cost of each flat."""
    async with world.journal() as journal:
        (run,) = await begin(journal)
        for _ in range(60):
            await write(journal, turn(run, entries=(entry("a"), entry("b")), status=Continue(1, (START,))))
            run = run._replace(generation=run.generation + 1)
        (again,) = await journal.reclaim(await journal.leases())
        (loaded,) = await journal.load([again])
        assert (again.generation, len(loaded.entries)) == (61, 1)
        assert world.count("events") == 60 * 3


async def test_a_suspended_generation_is_claimed_as_it_is(world: World) -> None:
    """CN03 replay reaches the same point: a later generation is loaded with its start and what came after."""
    async with world.journal("a") as one, world.journal("b") as other:
        (run,) = await begin(one)
        await write(one, turn(run, status=Continue(1, (START,))))
        (again,) = await one.reclaim(await one.leases())
        await write(one, turn(again, entries=(entry("a"),), status=Passivate(wakeup_us=1)))
        (there,) = (await claim(other)).values()
        (loaded,) = await other.load([there])
        assert [found.type for found in loaded.entries] == ["run_started", "activity_completed"]
        assert loaded.problem is None
