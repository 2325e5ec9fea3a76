"""A run's end and those below it: left, closed with it, or cancelled with it, in the commit that ends it."""

from __future__ import annotations

import pytest

from continuum._core.failure import decode_failure, encode_failure
from continuum._journal.commit import Cancel, Complete, Fail, Fenced, Keep, Passivate, Rejected
from continuum._journal.protocol import Journal
from continuum.errors import Failure
from tests.conformance.harness import World
from tests.journal.harness import KID, begin, child, claim, outcome, signal, task, turn, write

BOOM = encode_failure(Failure("Boom", "it went wrong"))
STOPPED = Cancel(encode_failure(Failure("cancelled", "enough")))


async def family(journal: Journal) -> None:
    """Run "r" holds a child that stays and one that closes with it; below each is one of either kind."""
    (run,) = await begin(journal)
    kinds = {"stays": "abandon", "closes": "cancel"}
    level = [run]
    for _ in range(2):
        kids = {
            above.run_id: [child(above.run_id, key, on_parent_close=kinds[key]) for key in kinds]
            for above in level
        }
        await write(journal, *(turn(above, children=tuple(kids[above.run_id])) for above in level))
        level = list((await claim(journal, KID)).values())


async def end(journal: Journal, run_id: str, **parts: object) -> None:
    lease = next(lease for lease in await journal.leases() if lease.run_id == run_id)
    (run,) = await journal.reclaim([lease])
    await write(journal, turn(run, **parts))


@pytest.mark.parametrize("status", [Complete(b"1"), Fail(BOOM)])
async def test_a_close_ends_the_children_that_close_with_it_and_all_below_those(
    world: World, status: Complete | Fail
) -> None:
    """CH26 what closes with its parent says parent_closed, what lies below that says parent_cancelled."""
    async with world.journal() as journal:
        await family(journal)
        await end(journal, "r", status=status, descendants="close")
        assert world.state("r") == ("completed" if isinstance(status, Complete) else "failed")
        rows = {row.run_id: row for row in await journal.views.below("r")}
        gone = {name: decode_failure(row.error) for name, row in rows.items() if row.error is not None}
        assert {name: failure.type for name, failure in gone.items()} == {
            "r/closes": "parent_closed",
            "r/closes/closes": "parent_cancelled",
            "r/closes/stays": "parent_cancelled",
        }
        assert gone["r/closes"].message == "run 'r' ended, and this child closes with it"
        assert "'r/closes'" in gone["r/closes/stays"].message
        assert {name for name, row in rows.items() if row.state == "running"} == {
            "r/stays",
            "r/stays/closes",
            "r/stays/stays",
        }
        assert world.count("inbox") == 0
        assert [lease.run_id for lease in sorted(await journal.leases(), key=lambda lease: lease.run_id)] == [
            "r/stays",
            "r/stays/closes",
            "r/stays/stays",
        ]


async def test_a_cancelled_run_takes_all_below_it_along_whatever_was_agreed(world: World) -> None:
    """CH05 a run that lets a requested cancellation through cancels everything below it in that commit."""
    async with world.journal() as journal:
        await family(journal)
        await end(journal, "r/stays", status=STOPPED, descendants="cancel", messages=(outcome("r/stays"),))
        told = {row.run_id: decode_failure(row.error) for row in await journal.views.below("r/stays") if row.error}
        assert {failure.type for failure in told.values()} == {"parent_cancelled"}
        assert {failure.message for failure in told.values()} == {"run 'r/stays' was cancelled: enough"}
        assert len(told) == 2
        assert '"cancelled"' in world.error("r/stays")
        assert "enough" in world.error("r/stays")
        assert [mail.key for mail in (await journal.mail(["r"]))["r"]] == ["stays"], "its own mail goes as always"
        assert world.state("r/closes/stays") == "running"


async def test_a_commit_that_leaves_those_below_touches_none(world: World) -> None:
    """CH26 a run that ends without more leaves its children, those too that were to close with it."""
    async with world.journal() as journal:
        await family(journal)
        await end(journal, "r", status=Complete(b"1"))
        assert {row.state for row in await journal.views.below("r")} == {"running"}


async def test_a_close_cancels_the_children_that_the_same_commit_starts(world: World) -> None:
    """CH26 also a child that was started in its parent's last turn closes with it, with its tasks and mail."""
    async with world.journal() as journal:
        (run,) = await begin(journal)
        kids = (child("r", "closes", on_parent_close="cancel"), child("r", "stays"))
        says = (signal("r/closes"), signal("r/stays"))
        status = Complete(b"1")
        commit = turn(run, children=kids, claimed=1, messages=says, status=status, descendants="close")
        await write(journal, commit)
        assert (world.state("r/closes"), world.state("r/stays")) == ("cancelled", "pending")
        assert world.count("inbox") == 1


async def test_who_awaits_what_closes_is_told_and_its_worker_is_fenced(world: World) -> None:
    """CA06 the worker of a run that closes with its parent hears of it, and its next commit is fenced."""
    async with world.journal("a") as one, world.journal("b") as other:
        (run,) = await begin(one)
        await write(one, turn(run, children=(child("r", "k", on_parent_close="cancel"),)))
        (kid,) = (await claim(other, KID)).values()
        await write(other, turn(kid, tasks=(task(),)))
        await world.heard["b"].until("gap")
        await write(one, turn(run, status=Complete(b"1"), descendants="close"))
        await world.heard["b"].until("fenced", "b")
        await world.heard["b"].until("ended", "r/k")
        assert await other.commit(turn(kid, seq=1)) == (Fenced(),)
        assert world.count("tasks") == 0


async def test_only_an_end_reaches_those_below(world: World) -> None:
    """CH26 a commit that does not end its run is refused if it says what becomes of those below."""
    async with world.journal() as journal:
        (run,) = await begin(journal)
        for status in (Keep(), Passivate()):
            (outcome,) = await journal.commit(turn(run, status=status, descendants="close"))
            assert isinstance(outcome, Rejected)
        assert world.state("r") == "running"
