"""Leases and fencing: one writer, however many believe that they are it."""

from __future__ import annotations

import asyncio
import time

import pytest

from continuum._core.entries import Entry
from continuum._core.failure import encode_failure
from continuum._journal.commit import Cancel, Complete, Fail, Fenced, Lease, Passivate, Rejected
from continuum.errors import Failure
from tests.conformance.harness import World
from tests.journal.harness import (
    FLOW,
    KID,
    begin,
    child,
    claim,
    entry,
    outcome,
    root,
    signal,
    soon,
    task,
    turn,
    until,
    write,
)

BOOM = encode_failure(Failure("Boom", "late"))


async def test_a_claim_gives_owner_and_token(world: World) -> None:
    """LF01 a claim gives owner and token."""
    async with world.journal("w") as journal:
        (run,) = await begin(journal, root(input=b'{"a":1}'))
        assert (run.run_id, run.token, run.generation, run.workflow, run.depth) == ("r", 1, 1, "flow", 0)
        assert run.input == b'{"a":1}'
        assert world.lease("r") == ("w", 1)
        assert await journal.leases() == [Lease("r", 1)]


async def test_a_live_lease_is_refused_to_everybody_else(world: World) -> None:
    """LF02 a live lease is refused."""
    async with world.journal("a") as one, world.journal("b") as other:
        await begin(one)
        world.season("b")
        assert await claim(other) == {}
        assert (await other.take_over()).released == 0
        assert await other.release([Lease("r", 1)]) == set()
        assert await other.reclaim([Lease("r", 1)]) == []
        assert world.lease("r") == ("a", 1)


async def test_a_takeover_raises_the_token(world: World) -> None:
    """LF03 takeover raises the token."""
    async with world.journal("a") as one, world.journal("b") as other:
        (run,) = await begin(one)
        world.silence("a")
        world.season("b")
        taken = await other.take_over()
        assert (taken.released, taken.parked, taken.workers) == (1, (), ("a",))
        assert world.lease("r") == (None, 2)
        assert (await claim(other))["r"].token == 3
        assert await one.commit(turn(run, entries=(entry(),))) == (Fenced(),)


async def test_only_the_owner_prolongs(world: World) -> None:
    """LF04 renewal needs the owner."""
    async with world.journal("a") as one, world.journal("b") as other:
        (run,) = await begin(one)
        await write(one, turn(run, tasks=(task(),)))
        (attempt,) = await one.claim_tasks("q", 10, 10)
        assert await other.renew_tasks([(attempt, b"1")], 10) == set()
        assert await one.renew_tasks([(attempt, b"1")], 10) == {attempt.task_id}
        world.silence("a")
        world.season("b")
        await other.take_over()
        assert not (await one.beat()).alive, "a dead worker's beat brings nothing back"
        assert (await other.beat()).alive


async def test_a_release_needs_owner_and_token(world: World) -> None:
    """LF05 release only when matching."""
    async with world.journal("a") as one, world.journal("b") as other:
        await begin(one)
        assert await one.release([Lease("r", 7), Lease("nobody", 1)]) == set()
        assert await other.release([Lease("r", 1)]) == set()
        assert world.lease("r") == ("a", 1)
        assert await one.release([Lease("r", 1)]) == {"r"}


async def test_a_stale_commit_is_rejected_whole(world: World) -> None:
    """LF06 a stale append is rejected whole."""
    async with world.journal("a") as journal:
        run, receiver = await begin(journal, root("r"), root("s"))
        await journal.release([Lease("r", 1)])
        before = {table: world.count(table) for table in ("runs", "events", "inbox", "tasks")}
        everything = turn(
            run,
            entries=(entry(),),
            children=(child("r", "k"),),
            messages=(signal(receiver.run_id),),
            tasks=(task(),),
            published=b"1",
            status=Complete(b"1"),
        )
        assert await journal.commit(everything) == (Fenced(),)
        assert {table: world.count(table) for table in before} == before
        assert world.state("r") != "completed"


@pytest.mark.parametrize(
    "status", [Cancel(BOOM), Complete(b"1"), Fail(BOOM), Passivate(1)], ids=lambda s: type(s).__name__
)
async def test_a_stale_ending_is_rejected(world: World, status: Cancel | Complete | Fail | Passivate) -> None:
    """LF07 stale cancel, completion and timer are rejected."""
    async with world.journal("a") as one, world.journal("b") as other:
        (stale,) = await begin(one)
        await one.release([Lease("r", 1)])
        (fresh,) = (await claim(other)).values()
        fired = Entry("timer_fired", "1", 1, b"{}")
        assert await one.commit(turn(stale, entries=(fired,), status=status)) == (Fenced(),)
        assert world.state("r") == "running"
        assert world.entries("r") == []
        await write(other, turn(fresh, entries=(fired,)))
        assert world.lease("r") == ("b", 2)


async def test_a_run_that_stands_in_a_group_twice_is_refused_and_not_under_way(world: World) -> None:
    """LF20 a run has one commit under way: an old copy of it may have waited with the new one."""
    async with world.journal("w") as journal:
        run, other = await begin(journal, root("r"), root("s"))
        with pytest.raises(RuntimeError, match="under way"):
            journal.submit(turn(other), turn(run), turn(run, seq=2))
        await write(journal, turn(other, entries=(entry(),)), turn(run, entries=(entry(),)))


async def test_an_older_attempt_cannot_end_a_task(world: World) -> None:
    """LF08 an older attempt of a task cannot complete it."""
    async with world.journal("a") as one, world.journal("b") as other:
        (run,) = await begin(one)
        await write(one, turn(run, tasks=(task(max_attempts=3),)))
        (older,) = await one.claim_tasks("q", 10, 10)
        world.lapse_tasks()
        world.season("b")
        assert await other.requeue_tasks() == 1
        (newer,) = await other.claim_tasks("q", 10, 10)
        assert (older.attempt, newer.attempt) == (1, 2)
        assert await one.report_tasks([(older, signal("r"))]) == set()
        assert await one.retry_tasks([(older, 0)]) == set()
        assert await one.renew_tasks([(older, None)], 10) == set()
        assert await one.mail(["r"]) == {}
        assert await other.report_tasks([(newer, signal("r"))]) == {newer.task_id}
        assert len((await one.mail(["r"]))["r"]) == 1


async def test_a_late_failure_cannot_flip_a_completed_run(world: World) -> None:
    """LF09 a late failure cannot flip a completed run."""
    async with world.journal() as journal:
        (run,) = await begin(journal)
        await write(journal, turn(run, status=Complete(b'"done"')))
        assert await journal.commit(turn(run, status=Fail(BOOM))) == (Fenced(),)
        end = (await journal.ends(["r"]))["r"]
        assert (end.state, end.result, end.error) == ("completed", b'"done"', None)


async def test_a_fresh_start_cannot_be_stolen_before_its_lease(world: World) -> None:
    """LF10 a fresh start cannot be stolen before its lease."""
    async with world.journal("a") as one, world.journal("b") as other:
        (run,) = await begin(one)
        await write(one, turn(run, children=(child("r", "mine"), child("r", "free")), claimed=1))
        world.season("b")
        await other.take_over()
        assert set(await claim(other)) == {"r/free"}
        assert world.lease("r/mine") == ("a", 1)
        (mine,) = [lease for lease in await one.leases() if lease.run_id == "r/mine"]
        assert mine.token == 1


async def test_two_dispatchers_share_what_is_due(world: World) -> None:
    """LF11 two dispatchers, one claim."""
    async with world.journal("a") as one, world.journal("b") as other:
        runs = [root(f"r{number}") for number in range(40)]
        await one.start(runs)
        found = await asyncio.gather(*(side.claim([FLOW], 7) for side in (one, other) * 8))
        ids = [run.run_id for batch in found for run in batch]
        assert sorted(ids) == sorted(run.run_id for run in runs)


async def test_a_fenced_worker_goes_on_with_its_other_runs(world: World) -> None:
    """LF12 a fenced-out worker drops its copy and goes on with other runs."""
    async with world.journal("a") as journal:
        lost, kept = await begin(journal, root("lost"), root("kept"))
        await journal.release([Lease("lost", 1)])
        one, other = await asyncio.gather(
            journal.commit(turn(lost, entries=(entry(),))), journal.commit(turn(kept, entries=(entry(),)))
        )
        assert one == (Fenced(),)
        assert world.entries("kept") == [(1, "activity_completed", "a")]
        assert other[0] not in (Fenced(),)


async def test_one_bad_commit_does_not_fail_its_neighbours(world: World) -> None:
    """LF13 one bad commit in a batch does not fail its neighbours."""
    async with world.journal() as journal:
        runs = await begin(journal, *(root(f"r{number}") for number in range(9)))
        bad = turn(runs[4], entries=(entry(payload=b'{"result":NaN}'),))
        good = [turn(run, entries=(entry(),)) for run in runs if run is not runs[4]]
        outcomes = await asyncio.gather(*(journal.commit(commit) for commit in [*good[:4], bad, *good[4:]]))
        assert [type(found).__name__ for (found,) in outcomes] == ["Committed"] * 4 + ["Rejected"] + [
            "Committed"
        ] * 4
        assert isinstance(outcomes[4][0], Rejected)
        assert world.entries("r4") == []
        await write(journal, turn(runs[4], entries=(entry(),)))


async def test_flushes_that_wake_each_others_runs_do_not_deadlock(world: World) -> None:
    """LF14 concurrent flushes that wake each other's parents do not deadlock."""
    async with world.journal("a") as one, world.journal("b") as other:
        mine = await begin(one, *(root(f"a{number}") for number in range(8)))
        theirs = await begin(other, *(root(f"b{number}") for number in range(8)))
        rounds = 12

        async def write_all(number: int) -> None:
            across = [(one, mine, theirs), (other, theirs, mine)]
            await asyncio.gather(
                *(
                    write(side, turn(run, seq=number, entries=(entry(),), messages=(signal(to.run_id),)))
                    for side, own, others in across
                    for run, to in zip(own, reversed(others), strict=True)
                )
            )

        for number in range(1, rounds + 1):
            await soon(write_all(number))
        mail = await one.mail([run.run_id for run in mine + theirs])
        assert {run_id: len(found) for run_id, found in mail.items()} == {
            run.run_id: rounds for run in mine + theirs
        }


async def test_a_message_beside_a_passivation_is_served(world: World) -> None:
    """LF15 a message committed beside a passivation is served."""
    async with world.journal("a") as journal, world.journal(None) as client:
        runs = await begin(journal, *(root(f"r{number}") for number in range(20)))
        await asyncio.gather(
            *(write(journal, turn(run, status=Passivate())) for run in runs),
            *(client.send([signal(run.run_id)]) for run in runs),
        )
        found: set[str] = set()

        async def all_claimed() -> bool:
            found.update(await claim(journal))
            return len(found) == len(runs)

        await until(all_claimed)
        assert len(await journal.mail(found)) == len(runs)


async def test_released_runs_go_to_the_next_worker_at_once(world: World) -> None:
    """LF16 a drain hands over at once and is idempotent."""
    async with world.journal("a") as one, world.journal("b") as other:
        await begin(one, root("r"), root("s"))
        await world.heard["b"].until("gap")
        leases = await one.leases()
        assert await one.release(leases) == {"r", "s"}
        assert await one.release(leases) == set()
        await world.heard["b"].until("ready", "flow:1")
        assert set(await claim(other)) == {"r", "s"}


async def test_a_wrong_clock_of_a_worker_changes_nothing(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """LF18 database clock only."""
    real_us = time.time() * 1_000_000
    monkeypatch.setattr(time, "time", lambda: 1_000_000_000.0)
    async with world.journal("a") as one, world.journal("b") as other:
        world.season("b")
        (run,) = await begin(one)
        beat = await one.beat()
        assert (beat.alive, beat.workers) == (True, 2)
        (done,) = await write(one, turn(run))
        for at_us in (beat.now_us, done.at_us, run.started_us):
            assert abs(at_us - real_us) < 60_000_000
        assert (await other.take_over()).released == 0


async def test_an_unknown_outcome_is_resolved_and_nothing_is_doubled(world: World) -> None:
    """CR18 connection lost after COMMIT was sent: outcome is resolved, nothing doubled."""
    async with world.losing("a") as (journal, proxy):
        heard_of, lost, other = await begin(journal, root("r"), root("s"), root("other"))
        for run, lose in ((heard_of, proxy.lose_answer), (lost, proxy.lose_statement)):
            await write(journal, turn(other))  # on a connection that is there already
            fault = lose("flush")
            (found,) = await soon(journal.commit(turn(run, entries=(entry(),), messages=(signal("r"),))))
            assert type(found).__name__ == "Unknown"
            assert fault.struck.is_set()
        again = {run.run_id: run for run in await soon(journal.reclaim(await journal.leases()))}
        assert {run.token for run in again.values()} == {2}
        loaded = {found.run_id: found for found in await journal.load(list(again.values()))}
        assert [len(loaded[run_id].entries) for run_id in ("r", "s")] == [1, 0]
        assert len(loaded["r"].mail) == 1
        assert await journal.commit(turn(heard_of, seq=2, entries=(entry(),))) == (Fenced(),)
        await write(journal, turn(again["r"], seq=2, entries=(entry("b"),)), turn(again["s"], entries=(entry(),)))
        assert world.entries("r") == [(1, "activity_completed", "a"), (2, "activity_completed", "b")]


async def test_a_childs_end_is_mail_of_its_parent_in_the_same_commit(world: World) -> None:
    """CR02 a commit survives the writer's death before the wake."""
    async with world.journal("a") as one, world.journal("b") as other:
        (run,) = await begin(one)
        await write(one, turn(run, children=(child("r", "k"),), status=Passivate()))
        kid = (await claim(other, KID))["r/k"]
        await write(other, turn(kid, status=Complete(b"1"), messages=(outcome("r/k"),)))
        assert [mail.key for mail in (await one.mail(["r"]))["r"]] == ["k"]
