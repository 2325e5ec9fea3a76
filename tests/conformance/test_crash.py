"""Workers that die, fall silent or come back: whose runs are taken, and who is blamed."""

from __future__ import annotations

import asyncio

from continuum._core.failure import encode_failure
from continuum._journal.commit import Complete, Lease, NewTask, Passivate, Swept, TakenOver
from continuum._journal.protocol import Journal
from continuum.errors import Failure
from tests.conformance.harness import World
from tests.journal.harness import begin, child, claim, entry, root, signal, soon, task, turn, until, write


async def test_an_orphans_lease_is_taken_over(world: World) -> None:
    """CR04 an orphaned lease is taken over within a bound."""
    async with world.journal("b") as other:
        async with world.journal("a") as one:
            runs = await begin(one, *(root(f"r{number}") for number in range(5)))
            await write(one, turn(runs[0], entries=(entry(),)))
        world.season("b")
        assert (await other.take_over()).released == 0, "its lease has not passed"
        world.silence("a")
        taken = await other.take_over()
        assert (taken.released, taken.workers) == (5, ("a",))
        claimed = await claim(other)
        assert len(claimed) == 5
        assert all(run.suspected for run in claimed.values())
        (loaded,) = await other.load([claimed["r0"]])
        assert len(loaded.entries) == 1


async def test_a_live_lease_is_never_touched(world: World) -> None:
    """CR05 a live remote lease is never touched."""
    async with world.journal("a") as one, world.journal("b") as other:
        await begin(one)
        world.season("b")
        for _ in range(3):
            taken = await other.take_over()
            await other.sweep(every_s=0)
            assert (taken.released, taken.workers) == (0, ())
        assert world.lease("r") == ("a", 1)
        assert (await one.beat()).alive


async def test_a_live_attempt_is_never_requeued(world: World) -> None:
    """CR06 a queued task's live lease is never requeued."""
    async with world.journal("a") as one, world.journal("b") as other:
        (run,) = await begin(one)
        await write(one, turn(run, tasks=(task(max_attempts=5),)))
        (attempt,) = await one.claim_tasks("q", 1, 10)
        world.season("b")
        assert await other.requeue_tasks() == 0
        assert await other.claim_tasks("q", 1, 10) == []
        assert await one.report_tasks([(attempt, signal("r"))]) == {attempt.task_id}


async def test_a_due_timer_is_claimed_after_downtime(world: World) -> None:
    """CR07 due timers fire after downtime."""
    async with world.journal("a") as one:
        (run,) = await begin(one)
        await write(one, turn(run, status=Passivate(wakeup_us=1)))
    async with world.journal("b") as other:
        assert set(await claim(other)) == {"r"}


async def test_a_stranded_task_goes_back_into_its_queue(world: World) -> None:
    """CR08 a stranded task is requeued by whoever looks, not only at boot."""
    async with world.journal("a") as one, world.journal("b") as other:
        (run,) = await begin(one)
        await write(one, turn(run, tasks=(task(max_attempts=2),)))
        (attempt,) = await one.claim_tasks("q", 1, 10)
        await one.renew_tasks([(attempt, b'{"row":17}')], 10)
        world.lapse_tasks()
        assert await other.requeue_tasks() == 0, "who has just connected judges nobody"
        world.season("b")
        assert await other.requeue_tasks() == 1
        (again,) = await other.claim_tasks("q", 1, 10)
        assert (again.attempt, again.details) == (2, b'{"row":17}')


async def test_a_requeue_without_attempts_left_fails_the_activity(world: World) -> None:
    """CR09 a requeue past max_attempts fails without executing."""
    async with world.journal("a") as one, world.journal("b") as other:
        (run,) = await begin(one)
        await write(one, turn(run, tasks=(NewTask("t", "q", "work", b'{"x":1}', max_attempts=1),)))
        await one.claim_tasks("q", 1, 10)
        world.season("b")
        world.lapse_tasks()
        assert await other.requeue_tasks() == 1
        assert await other.claim_tasks("q", 1, 10) == []
        ((mail,),) = (await one.mail(["r"])).values()
        assert (mail.type, mail.key, mail.generation) == ("activity_failed", "t", 1)
        assert b"WorkerLost" in mail.payload


async def die(world: World, dying: Journal, heir: Journal, suspect: str | None) -> tuple[str, ...]:
    """Let ``dying`` claim everything, name a suspect and die; ``heir`` takes over. Return what was parked."""
    assert dying.worker_id is not None
    await claim(dying)
    await dying.suspect(suspect)
    world.silence(dying.worker_id)
    return (await heir.take_over()).parked


async def test_a_run_that_kills_workers_is_parked_at_the_third_death(world: World) -> None:
    """CR16 a poison run is isolated and parked after bounded attempts."""
    async with world.journal("heir") as heir, world.journal(None) as client:
        world.season("heir")
        await client.start([root("poison"), root("innocent")])
        parked: list[tuple[str, ...]] = []
        for number in range(3):
            async with world.journal(f"w{number}") as dying:
                parked.append(await die(world, dying, heir, "poison"))
        assert parked == [(), (), ("poison",)]
        assert world.state("poison") == "parked"
        assert "PoisonRun" in world.error("poison")
        (innocent,) = (await claim(heir)).values()
        assert (innocent.run_id, innocent.deaths) == ("innocent", 0)
        await client.send([signal("poison")])
        assert len(await client.mail(["poison"])) == 1, "a parked run receives"
        assert await client.resume("poison")
        assert (await claim(heir))["poison"].deaths == 0
        assert not await client.resume("poison")


async def test_repeated_deaths_park_nobody_who_was_not_named(world: World) -> None:
    """CR21 repeated kills of a worker park no innocent run."""
    async with world.journal("heir") as heir, world.journal(None) as client:
        world.season("heir")
        await client.start([root(f"r{number}") for number in range(5)])
        for number in range(5):
            async with world.journal(f"w{number}") as dying:
                assert await die(world, dying, heir, None) == ()
        claimed = await claim(heir)
        assert {run.deaths for run in claimed.values()} == {0}
        await write(heir, turn(claimed["r0"], status=Passivate(wakeup_us=1)))
        assert not (await claim(heir))["r0"].suspected, "a run that came through a turn is not suspected any more"


async def test_after_an_outage_nobody_takes_over_from_anybody(world: World) -> None:
    """CR20 Postgres away longer than a lease: no mutual takeover, nothing lost."""
    async with world.journal("a") as one, world.journal("b") as other:
        await begin(one)
        for name in ("a", "b"):
            world.season(name)
            world.silence(name)
        await one.beat()  # the first to come back finds the other silent
        assert [await judge.take_over() for judge in (one, other)] == [
            TakenOver(0, (), (), held=True),
            TakenOver(0, (), (), held=False),
        ]
        assert (await other.beat()).alive
        assert world.lease("r") == ("a", 1)


async def test_a_zombie_writes_nothing_when_it_thaws(world: World) -> None:
    """CR19 SIGSTOP past the lease, then SIGCONT: the zombie writes nothing."""
    async with world.journal("a") as zombie, world.journal("b") as other:
        (stale,) = await begin(zombie)
        world.silence("a")
        world.season("b")
        await other.take_over()
        (run,) = (await claim(other)).values()
        await write(other, turn(run, status=Complete(b"1")))
        outcomes = await zombie.commit(turn(stale, entries=(entry(),), messages=(signal("r"),)))
        assert type(outcomes[0]).__name__ == "Fenced"
        assert not (await zombie.beat()).alive
        assert await claim(zombie) == {}
        assert await zombie.release([Lease("r", 1)]) == set()
        assert world.entries("r") == []


async def test_leases_of_a_worker_that_left_are_taken_over(world: World) -> None:
    """CR10 worker death: what a worker left behind finishes elsewhere, also if it deregistered."""
    async with world.journal("a") as one, world.journal("b") as other:
        await begin(one)
        await one.deregister()
        taken = await other.take_over()
        assert (taken.released, taken.workers) == (1, ())
        assert set(await claim(other)) == {"r"}


async def test_a_refused_value_is_the_commits_own_failure(world: World) -> None:
    """CR15 an unencodable result or error becomes a terminal failure, not a loop."""
    async with world.journal() as journal:
        (run,) = await begin(journal)
        for nonsense in (b'"\xff"', b"{", b"NaN", b'"\x00"'):
            (found,) = await soon(journal.commit(turn(run, status=Complete(nonsense))))
            assert type(found).__name__ == "Rejected"
        await write(journal, turn(run, status=Complete(b"1")))


async def test_a_copy_that_is_behind_its_journal_writes_nothing(world: World) -> None:
    """CR18 after trouble nothing is doubled: who does not know the last entries is told to read them."""
    async with world.journal() as journal:
        run, other = await begin(journal, root("r"), root("s"))
        await write(journal, turn(run, entries=(entry(),)))
        behind, fine = turn(run, entries=(entry("b"),)), turn(other, entries=(entry(),))
        outcomes = await soon(asyncio.gather(journal.commit(behind), journal.commit(fine)))
        assert [type(found).__name__ for (found,) in outcomes] == ["Stale", "Committed"]
        assert world.entries("r") == [(1, "activity_completed", "a")]
        child_of_it = child("r", "k")
        large = turn(run, entries=tuple(entry(f"e{n}") for n in range(2_500)), children=(child_of_it,))
        assert [type(found).__name__ for found in await soon(journal.commit(large))] == ["Stale"]
        assert (world.count("runs"), world.entries("r")) == (2, [(1, "activity_completed", "a")])


async def test_the_sweep_finds_what_a_sender_that_died_left_unsaid(world: World) -> None:
    """CR02 a commit survives the writer's death before the wake."""
    async with world.journal("gone") as journal:
        (run,) = await begin(journal)
        await write(journal, turn(run, status=Passivate()))
    async with world.journal("a") as journal:
        world.deliver_silently(signal("r"))
        assert await claim(journal) == {}

        async def swept() -> bool:
            found = await journal.sweep(every_s=0)
            return found is not None and found.armed == 1

        await until(swept)
        assert set(await claim(journal)) == {"r"}


async def test_heartbeats_tell_every_worker_that_a_sweep_is_due(world: World) -> None:
    """CR02 until all inboxes are seen the next part is due, here and elsewhere; then for a while none."""
    async with world.journal("a") as one, world.journal("b") as other:
        for run in await begin(one, root("r"), root("s")):
            await write(one, turn(run, status=Complete(b"1")))
        for run_id in ("r", "s"):
            world.deliver_silently(signal(run_id))
        assert [(await journal.beat()).unswept for journal in (one, other)] == [True, True], "nobody ever swept"
        assert await one.sweep(budget=1) == Swept(0, 1, False)
        assert [(await journal.beat()).unswept for journal in (one, other)] == [True, True]
        assert await other.sweep() == Swept(0, 1, True)
        assert [(await journal.beat()).unswept for journal in (one, other)] == [False, False]
        assert await one.sweep() is None


async def test_many_waiters_of_a_failed_run_hear_the_same(world: World) -> None:
    """CR03 a failure survives too, and everybody who waits hears it."""
    async with world.journal("a") as one, world.journal(None) as client:
        (run,) = await begin(one)
        waiting = asyncio.gather(*(client.wait("r") for _ in range(30)))
        await write(one, turn(run, status=Complete(encode_failure(Failure("Boom", "")))))
        assert {end.state for end in await soon(waiting)} == {"completed"}
