"""Timeouts of children that outlive their parents: rows of the parent's last commit, which any worker keeps."""

from __future__ import annotations

import pytest

from continuum import RunCancelled, continue_as_new, start_child, wait_signal, workflow
from continuum._core.effects import Deadline
from continuum._core.failure import encode_failure
from continuum._journal.commit import Commit, Complete, Fail, Fenced, Undone
from continuum._journal.protocol import Journal
from continuum.errors import Failure
from tests.conformance.cluster import FORGETFUL, Cluster
from tests.conformance.flows import idle
from tests.conformance.harness import World
from tests.journal.harness import KID, begin, child, claim, entry, root, signal, soon, task, turn, write
from tests.until import PATIENCE_S

LATER_US = 32_503_680_000_000_000  # the year 3000
ENDS = [Complete(b"1"), Fail(encode_failure(Failure("Boom", "it went wrong")))]


async def left_behind(journal: Journal, *, due_us: int = LATER_US) -> Commit:
    """Let a run end that leaves a child with a timeout; return the child's turn that ends it."""
    (run,) = await begin(journal)
    await write(journal, turn(run, children=(child("r", "k"),)))
    kid = (await claim(journal, KID))["r/k"]
    await write(journal, turn(run, status=Complete(b"1"), deadlines=(Deadline("r/k", due_us),)))
    return turn(kid, status=Complete(b"1"))


@pytest.mark.parametrize("end", ENDS, ids=["completes", "fails"])
async def test_a_child_that_outlives_its_parent_falls_at_its_timeout(world: World, end: Complete | Fail) -> None:
    """CH34 a timeout is for the child's whole life, and all below it falls with it."""
    async with world.journal() as journal:
        (run,) = await begin(journal)
        await write(journal, turn(run, children=(child("r", "k"), child("r", "j"))))
        kid = (await claim(journal, KID))["r/k"]
        await write(journal, turn(kid, children=(child("r/k", "g"),), tasks=(task(),)))
        await journal.send([signal("r/k")])
        await write(journal, turn(run, status=end, deadlines=(Deadline("r/k", LATER_US),)))
        assert await journal.cancel_overdue() == 0
        assert not (await journal.beat()).overdue
        world.lapse_deadlines()
        assert (await journal.beat()).overdue
        assert await journal.cancel_overdue() == 2
        assert [world.state(run_id) for run_id in ("r/k", "r/k/g", "r/j")] == ["cancelled", "cancelled", "running"]
        assert '"cancelled"' in world.error("r/k")
        assert '"timeout"' in world.error("r/k")
        assert [world.count(what) for what in ("cancellations", "inbox", "tasks")] == [0, 0, 0]
        assert (await soon(journal.commit(turn(kid, entries=(entry(),))))) == (Fenced(),)


async def test_a_timeout_that_has_passed_already_is_kept_at_once(world: World) -> None:
    """CH34 so it is with a parent that ends late."""
    async with world.journal() as journal:
        await left_behind(journal, due_us=1)
        assert (await journal.beat()).overdue
        assert await journal.cancel_overdue() == 1


@pytest.mark.parametrize("due_us", [-(10**30), 10**30])
async def test_a_timeout_at_no_time_of_the_databases_is_the_nearest_one(world: World, due_us: int) -> None:
    """CH34 a timeout may be of any length."""
    async with world.journal() as journal:
        await left_behind(journal, due_us=due_us)
        assert await journal.cancel_overdue() == (due_us < 0)


async def test_a_child_that_ends_in_time_is_left_as_it_is(world: World) -> None:
    """CH34 the row goes when its time has come, or with the tree."""
    async with world.journal() as journal:
        await write(journal, await left_behind(journal))
        world.lapse_deadlines()
        assert await journal.cancel_overdue() == 0
        assert world.state("r/k") == "completed"
        assert world.count("cancellations") == 0


async def test_a_tree_that_is_pruned_takes_its_timeouts_with_it(world: World) -> None:
    """CH28, CH34 pruning leaves no deadline behind."""
    async with world.journal() as journal:
        end = await left_behind(journal)
        assert await journal.prune(0) == 0
        await write(journal, end)
        assert world.count("cancellations") == 1
        assert await journal.prune(0) == 1
        assert [world.count(what) for what in ("runs", "cancellations")] == [0, 0]


async def test_a_child_that_the_same_commit_closes_leaves_no_deadline(world: World) -> None:
    """CH26, CH34 it has fallen, and what it had waiting with it."""
    async with world.journal() as journal:
        (run,) = await begin(journal)
        closing = child("r", "k", on_parent_close="cancel")
        await write(journal, turn(run, children=(closing,)))
        deadlines = (Deadline("r/k", LATER_US),)
        await write(journal, turn(run, status=Complete(b"1"), descendants="close", deadlines=deadlines))
        assert world.state("r/k") == "cancelled"
        assert world.count("cancellations") == 0


async def test_a_commit_that_is_not_written_leaves_no_deadline(world: World) -> None:
    """LF06 a fenced commit changes nothing, nor does one that falls with it."""
    async with world.journal() as journal:
        run, other = await begin(journal, root("r"), root("s"))
        await write(journal, turn(run, children=(child("r", "k"),)))
        end = turn(run, status=Complete(b"1"), deadlines=(Deadline("r/k", LATER_US),))
        zombie = turn(other, entries=(entry(),))._replace(token=7)
        assert await soon(journal.commit(end, zombie)) == (Undone(), Fenced())
        assert await soon(journal.commit(end._replace(token=7))) == (Fenced(),)
        assert world.count("cancellations") == 0
        assert world.state("r") == "running"


async def test_a_child_can_be_asked_to_stop_before_its_timeout(world: World) -> None:
    """CA10, CH34 a timeout is no request: the first who asks is heard, and the earlier deadline counts."""
    async with world.journal() as journal:
        await left_behind(journal)
        before = await journal.describe("r/k")
        assert before is not None
        assert (before.stop_by, before.stop_reason) == (None, None)
        assert await journal.request_cancel("r/k", "too dear", 3_600) == "running"
        assert await journal.request_cancel("r/k", "again", 7_200) == "running"
        ((mail,),) = (await journal.mail(["r/k"])).values()
        assert (mail.type, mail.payload) == ("cancel_requested", b'{"reason":"too dear"}')
        found = await journal.describe("r/k")
        assert found is not None
        assert found.stop_by is not None
        assert found.stop_by.year < 3000
        assert found.stop_reason == "too dear"


async def test_a_request_to_stop_stands_beside_a_timeout_that_comes_later(world: World) -> None:
    """CA10, CH34 whichever of the two is written first."""
    async with world.journal() as journal:
        (run,) = await begin(journal)
        await write(journal, turn(run, children=(child("r", "k"),)))
        await journal.request_cancel("r/k", "too dear", 3_600)
        await write(journal, turn(run, status=Complete(b"1"), deadlines=(Deadline("r/k", 1),)))
        assert world.count("cancellations") == 1
        await journal.request_cancel("r/k", "again", 7_200)
        assert len((await journal.mail(["r/k"]))["r/k"]) == 1
        assert await journal.cancel_overdue() == 1


# --- through real workers


@workflow
async def hasty(seconds: float) -> str:
    """Leave two children behind that wait for ever, one of them for an hour."""
    start_child(idle, id="slow", timeout=seconds)
    start_child(idle, id="lasting", timeout=3600)
    return "done"


@workflow
async def chain(n: int) -> str:
    start_child(idle, id=f"of-{n}", timeout=0.3)
    if n == 0:
        continue_as_new(1)
    return "done"


@workflow
async def above(seconds: float) -> str:
    start_child(hasty, seconds, id="hasty")
    await wait_signal("end")
    return "done"


@pytest.mark.parametrize("settings", [{}, FORGETFUL], ids=["resident", "forgetful"])
async def test_an_abandoned_child_is_cancelled_at_its_timeout(
    cluster: Cluster, settings: dict[str, float]
) -> None:
    """CH34, CH26 the parent has ended by then; who awaits the child hears of it."""
    async with cluster.worker([hasty, idle], **settings):
        assert await cluster.result(hasty, 0.3, id="p") == "done"
        with pytest.raises(RunCancelled, match="timeout"):
            await cluster.client.get_run("p/slow").result(timeout=PATIENCE_S)
        found = await cluster.until_state("p/slow", "cancelled")
        assert found.error is not None
        assert (found.error.type, found.error.message) == ("cancelled", "timeout")
        assert (await cluster.client.get_run("p/lasting").describe()).state in ("pending", "running", "suspended")


async def test_a_timeout_is_kept_though_the_worker_has_gone_and_nobody_has_the_code(cluster: Cluster) -> None:
    """CH34 any worker keeps it."""
    async with cluster.worker([hasty, idle]):
        assert await cluster.result(hasty, 0.5, id="p") == "done"
    async with cluster.worker([above]):
        await cluster.until_state("p/slow", "cancelled")


async def test_children_of_all_generations_fall_at_their_timeouts(cluster: Cluster) -> None:
    """CH34, CN06 the last generation leaves what the others have handed on."""
    async with cluster.worker([chain, idle]):
        assert await cluster.result(chain, 0, id="c") == "done"
        for n in range(2):
            await cluster.until_state(f"c/of-{n}", "cancelled")


async def test_a_child_that_ends_in_its_parents_commit_leaves_its_childrens_timeouts(cluster: Cluster) -> None:
    """CH34, CH31 two ends in one commit, of which one has children."""
    async with cluster.worker([above, hasty, idle]):
        await cluster.start(above, 0.3, id="a")
        await cluster.until_state("a/hasty/slow", "cancelled")
        assert (await cluster.client.get_run("a").describe()).state != "completed"
