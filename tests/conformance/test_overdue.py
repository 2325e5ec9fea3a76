"""Asking a run to stop: one message and a deadline that is durable, after which any worker cancels it."""

from __future__ import annotations

import asyncio

import pytest

from continuum._core.failure import encode_failure
from continuum._journal.canceller import MOST_OVERDUE
from continuum._journal.commit import Complete, Park, Passivate
from continuum.errors import DatabaseRefused, Failure
from tests.conformance.harness import World
from tests.journal.harness import KID, begin, child, claim, root, signal, soon, task, turn, write
from tests.until import until

BOOM = encode_failure(Failure("Boom", "it went wrong"))


async def test_a_run_is_asked_once_and_is_overdue_when_its_time_has_passed(world: World) -> None:
    """CA10 a request is one message, however often it is made; the deadline is what cancels."""
    async with world.journal() as journal:
        (run,) = await begin(journal)
        await write(journal, turn(run, children=(child("r", "k"),)))
        assert await journal.request_cancel("r", "going home", 3_600) == "running"
        assert await journal.request_cancel("r", "again", 7_200) == "running"
        ((mail,),) = (await journal.mail(["r"])).values()
        assert (mail.type, mail.key, mail.payload) == ("cancel_requested", "", b'{"reason":"going home"}')
        assert not (await journal.beat()).overdue
        assert await journal.cancel_overdue() == 0
        assert world.state("r") == "running"
        world.lapse_deadlines()
        assert (await journal.beat()).overdue
        assert await journal.cancel_overdue() == 2
        assert world.state("r") == world.state("r/k") == "cancelled"
        assert "going home" in world.error("r")
        assert not (await journal.beat()).overdue
        assert world.count("cancellations") == world.count("inbox") == 0


async def test_asked_again_the_earlier_deadline_counts(world: World) -> None:
    """CA10 a second request shortens the time and never lengthens it."""
    async with world.journal() as journal:
        await begin(journal)
        for grace_s in (3_600, 0, 7_200):
            await journal.request_cancel("r", "", grace_s)
        assert (await journal.beat()).overdue
        assert await journal.cancel_overdue() == 1


@pytest.mark.parametrize("standing", ["pending", "suspended", "parked", "later"])
async def test_a_run_that_nobody_has_is_woken_and_overdue_like_any_other(world: World, standing: str) -> None:
    """CA10 a run without a worker is asked too: it wakes, and if it does not, it is cancelled all the same."""
    async with world.journal() as journal:
        if standing in ("suspended", "parked"):
            (run,) = await begin(journal)
            await write(journal, turn(run, status=Passivate() if standing == "suspended" else Park(BOOM)))
        else:
            far_us = 4_000_000_000_000_000 if standing == "later" else None
            await journal.start([root(wakeup_us=far_us)])
        assert await journal.request_cancel("r", "", 3_600) in ("pending", "suspended", "parked")

        async def due() -> bool:
            return "r" in await claim(journal)

        if standing == "parked":
            assert await claim(journal) == {}
        else:
            await until(due)
        world.lapse_deadlines()
        assert await journal.cancel_overdue() == 1
        assert world.state("r") == "cancelled"


async def test_of_an_ended_run_or_of_none_nothing_is_changed(world: World) -> None:
    """CA10 who asks an ended run is told its state; an unknown one is none."""
    async with world.journal() as journal:
        (run,) = await begin(journal)
        await write(journal, turn(run, status=Complete(b"1")))
        assert await journal.request_cancel("r", "", 10) == "completed"
        for missing in ("nobody", "r/k", "r\0", "\udc80"):
            assert await journal.request_cancel(missing, "", 10) is None
        with pytest.raises(DatabaseRefused):
            await journal.request_cancel("r", "a\0b", 10)
        assert world.count("cancellations") == world.count("inbox") == 0


async def test_a_run_that_ends_in_time_is_left_as_it_is(world: World) -> None:
    """CA10 who returns in time has completed, and what is left of the request goes when its time has come."""
    async with world.journal() as journal:
        (run,) = await begin(journal)
        await journal.request_cancel("r", "", 10)
        await write(journal, turn(run, status=Complete(b"1")))
        world.lapse_deadlines()
        assert await journal.cancel_overdue() == 0
        assert world.state("r") == "completed"
        assert world.count("cancellations") == 0


async def test_what_lives_below_a_run_that_ends_in_time_keeps_what_it_has_waiting(world: World) -> None:
    """CA10 the deadline of a run that has ended takes nothing from those that it left behind."""
    async with world.journal() as journal:
        (run,) = await begin(journal)
        await write(journal, turn(run, children=(child("r", "k"),)))
        kid = (await claim(journal, KID))["r/k"]
        await write(journal, turn(kid, tasks=(task(),), children=(child("r/k", "g"),)))
        await journal.request_cancel("r", "", 0)
        await write(journal, turn(run, status=Complete(b"1")))
        await journal.request_cancel("r/k", "", 3_600)
        await journal.send([signal("r/k"), signal("r/k/g")])
        before = [world.count(what) for what in ("inbox", "tasks")]
        assert await journal.cancel_overdue() == 0
        assert [world.count(what) for what in ("inbox", "tasks")] == before
        assert len((await journal.mail(["r/k"]))["r/k"]) == 2
        assert world.count("cancellations") == 1
        world.lapse_deadlines()
        assert await journal.cancel_overdue() == 2
        assert await journal.mail(["r/k", "r/k/g"]) == {}
        assert [world.count(what) for what in ("tasks", "cancellations")] == [0, 0]


async def test_a_plain_cancel_in_the_meantime_cancels_at_once(world: World) -> None:
    """CA10 a cancel without grace ends the run at once, and the deadlines of all it ends are gone."""
    async with world.journal() as journal:
        (run,) = await begin(journal)
        await write(journal, turn(run, children=(child("r", "k"),)))
        await journal.request_cancel("r", "", 10)
        await journal.request_cancel("r/k", "", 10)
        assert (await journal.cancel("r", "now")).runs == 2
        assert world.count("cancellations") == 0
        assert await journal.request_cancel("r", "", 0) == "cancelled"
        assert not (await journal.beat()).overdue


async def test_several_workers_find_the_overdue_ones_and_each_is_cancelled_once(world: World) -> None:
    """CA10 any worker may cancel what is overdue, and it does no harm if all do."""
    async with world.journal("a") as one, world.journal("b") as other:
        (run,) = await begin(one)
        await one.start([root(f"s{number}") for number in range(150)])
        await write(one, turn(run, children=(child("r", "k"),)))
        for run_id in ("r", "r/k", *(f"s{number}" for number in range(150))):
            await one.request_cancel(run_id, "late", 0)
        ended = 0
        while (await one.beat()).overdue:
            ended += sum(await soon(asyncio.gather(one.cancel_overdue(), other.cancel_overdue())))
        assert ended == 152
        assert world.count("cancellations") == 0
        assert world.state("r/k") == "cancelled"


async def test_a_child_that_is_overdue_tells_its_parent(world: World) -> None:
    """CA10 the parent of a run that did not stop in time hears that it was cancelled."""
    async with world.journal() as journal:
        (run,) = await begin(journal)
        await write(journal, turn(run, children=(child("r", "k"),)))
        await claim(journal, KID)
        await journal.request_cancel("r/k", "late", 0)
        assert await journal.cancel_overdue() == 1
        ((mail,),) = (await journal.mail(["r"])).values()
        assert (mail.type, mail.key, mail.payload) == ("child_cancelled", "k", b'{"reason":"late"}')


async def test_who_is_held_by_somebody_keeps_no_other_from_being_cancelled(world: World) -> None:
    """CA10 of the overdue ones those are left out whose rows somebody holds."""
    async with world.journal() as journal:
        await begin(journal, root("a"), root("b"), root("c"))
        for run_id in "abc":
            await journal.request_cancel(run_id, "", 0)
        with world.hold("b"):
            assert await journal.cancel_overdue() == 2
            assert world.state("b") == "running"
        assert await journal.cancel_overdue() == 1


async def test_as_many_as_are_cancelled_at_a_time_may_be_held_and_the_next_one_falls(world: World) -> None:
    """CA10 whoever is held for long is left out, and the others' turn comes all the same."""
    held = [f"h{number}" for number in range(MOST_OVERDUE)]
    async with world.journal() as journal:
        await journal.start([root(run_id) for run_id in (*held, "r", "s")])
        for run_id in (*held, "r", "s"):
            await journal.request_cancel(run_id, "", 0)
        with world.hold(*held):
            assert await soon(journal.cancel_overdue()) == 2
            assert await soon(journal.cancel_overdue()) == 0
            assert world.state("r") == world.state("s") == "cancelled"
        assert await soon(journal.cancel_overdue()) == MOST_OVERDUE
        assert not (await journal.beat()).overdue


async def test_as_many_as_are_cancelled_at_a_time_may_have_ended_and_the_next_one_falls(world: World) -> None:
    """CA10 the deadlines of those that ended in time keep no other from being cancelled."""
    ended = [f"e{number}" for number in range(99)]
    async with world.journal() as journal:
        runs = await begin(journal, root("e99"), *(root(run_id) for run_id in ended))
        await journal.start([root("r")])
        for run_id in (*(run.run_id for run in runs), "r"):
            await journal.request_cancel(run_id, "", 0)
        await write(journal, *(turn(run, status=Complete(b"1")) for run in runs))
        assert await soon(journal.cancel_overdue()) == 1
        assert world.count("cancellations") == 0
