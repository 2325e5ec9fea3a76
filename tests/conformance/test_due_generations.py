"""A generation that begins later: the lease is given up until then, and mail does not make it begin sooner."""

from __future__ import annotations

from datetime import UTC, datetime

from continuum._core.effects import Message
from continuum._journal.commit import Continue, Fenced
from continuum._journal.protocol import Journal
from tests.conformance.harness import World
from tests.journal.harness import begin, claim, entry, root, signal, turn, write
from tests.until import until

START = entry("", b'{"input":2,"carried":0,"child_deadlines":{}}', "run_started")
FAR_US = 4_000_000_000_000_000
WHY = "attempt 2 of 3 after ValueError: no"


async def retried(journal: Journal, wakeup_us: int) -> None:
    (run,) = await begin(journal)
    again = Continue(1, (START, entry("b")), wakeup_us, WHY)
    await write(journal, turn(run, entries=(entry("a"),), status=again))


async def test_a_generation_that_begins_later_is_durable_and_waits(world: World) -> None:
    """CH34 a retry is the next generation of the same run, due when its time has come."""
    async with world.journal() as journal:
        await retried(journal, FAR_US)
        row = await journal.describe("r")
        assert row is not None
        assert (row.generation, row.state, row.waiting_for, row.worker_id) == (2, "suspended", WHY, None)
        assert row.next_wakeup_at == datetime.fromtimestamp(FAR_US / 1_000_000, UTC)
        assert world.entries("r", 1) == [(1, "activity_completed", "a")]
        assert world.entries("r", 2) == [(0, "run_started", ""), (1, "activity_completed", "b")]
        assert await claim(journal) == {}
        assert await journal.leases() == []


async def test_when_its_time_has_come_anybody_claims_it(world: World) -> None:
    """CH34 the next attempt may be another worker's; what waited for is over."""
    async with world.journal("a") as one, world.journal("b") as other:
        await retried(one, 1)
        (run,) = (await claim(other)).values()
        assert (run.generation, run.token) == (2, 2)
        row = await one.describe("r")
        assert row is not None
        assert row.waiting_for is None
        assert world.state("r") == "running"
        (loaded,) = await other.load([run])
        assert [found.key for found in loaded.entries] == ["", "b"]
        assert await one.commit(turn(run._replace(token=1), seq=2)) == (Fenced(),)


async def test_mail_makes_it_begin_no_sooner(world: World) -> None:
    """CH34 a signal waits for the attempt, whenever it was sent, and neither POKE nor sweep hurries."""
    async with world.journal() as journal, world.journal(None) as client:
        (run,) = await begin(journal)
        await client.send([signal("r")])
        await write(journal, turn(run, status=Continue(1, (START,), FAR_US, WHY)))
        await client.send([signal("r")])
        await client.start([root("later", wakeup_us=FAR_US), root("witness", workflow="kid")])
        await client.send([signal("later"), signal("witness")])
        journal.arm(["r", "later"])
        (witness,) = (await claim(journal, ("kid", 1))).values()
        await write(journal, turn(witness))
        swept = await journal.sweep(every_s=0)
        assert swept is not None
        assert swept.armed == 0
        assert await claim(journal) == {}
        assert len((await journal.mail(["r"]))["r"]) == 2


async def test_a_request_to_stop_reaches_it_before_its_time(world: World) -> None:
    """CA10 a run that waits for its next attempt wakes to be told that it shall stop."""
    async with world.journal() as journal, world.journal(None) as client:
        await retried(journal, FAR_US)
        await client.request_cancel("r", "", 3_600)

        async def due() -> bool:
            return "r" in await claim(journal)

        await until(due)


async def test_a_request_that_came_before_it_was_put_off_wakes_it_too(world: World) -> None:
    """CA10 whichever of the two commits later, the run is woken; without any hint the sweep does it."""
    async with world.journal() as journal:
        (run,) = await begin(journal)
        world.deliver_silently(Message("r", "cancel_requested", "", b'{"reason":""}'))
        await write(journal, turn(run, status=Continue(1, (START,), FAR_US, WHY)))

        async def due() -> bool:
            return "r" in await claim(journal)

        await until(due)


async def test_the_sweep_finds_a_request_to_stop_that_nobody_poked(world: World) -> None:
    """CA10 a request whose sender died before its POKE is found by the sweep."""
    async with world.journal() as journal:
        await journal.start([root(wakeup_us=FAR_US)])
        world.deliver_silently(Message("r", "cancel_requested", "", b'{"reason":""}'))
        swept = await journal.sweep(every_s=0)
        assert swept is not None
        assert swept.armed == 1
        assert "r" in await claim(journal)
