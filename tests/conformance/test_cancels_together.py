"""One cascade with many roots: each falls with its own reason, what lies below another falls with that one."""

from __future__ import annotations

from continuum._core.effects import Cancellation
from continuum._core.failure import decode_failure
from continuum._journal.commit import Complete, Passivate
from continuum._journal.protocol import Journal
from tests.conformance.harness import World
from tests.journal.harness import KID, begin, child, claim, root, turn, write


async def tree(journal: Journal, *names: str) -> None:
    """Start run "r" and, below it, runs of these names; nobody holds those."""
    (run,) = await begin(journal)
    held = {"r": run}
    for depth in range(1, 4):
        for above in list(held.values()):
            level = [name for name in names if name.count("/") == depth - 1]
            ids = [f"r/{name}" for name in level if f"r/{name}".rpartition("/")[0] == above.run_id]
            kids = tuple(child(above.run_id, run_id.rpartition("/")[2]) for run_id in ids)
            if kids:
                await write(journal, turn(above, children=kids))
        held |= await claim(journal, KID)
    await write(journal, *(turn(run, status=Passivate()) for run in held.values() if run.depth))


async def cancelled(journal: Journal, world: World, *cancels: tuple[str, str]) -> dict[str, str]:
    """Cancel in one commit of run "r"; return type and message of each error below it."""
    ((lease),) = await journal.leases()
    (run,) = await journal.reclaim([lease])
    await write(journal, turn(run, cancels=tuple(Cancellation(f"r/{name}", why) for name, why in cancels)))
    rows = await journal.views.below("r")
    failures = {row.run_id: decode_failure(row.error) for row in rows if row.error is not None}
    return {run_id[2:]: f"{found.type}: {found.message}" for run_id, found in failures.items()}


async def test_each_of_many_falls_with_its_own_reason_and_is_told(world: World) -> None:
    """CH05 of many that one commit cancels, each ends with its own reason and what lies below it with that."""
    async with world.journal() as journal:
        await tree(journal, "a", "b", "c", "a/x", "b/y")
        told = await cancelled(journal, world, ("b", "too late"), ("a", ""), ("nobody", "?"))
        assert told == {
            "a": "cancelled: ",
            "a/x": "parent_cancelled: run 'r/a' was cancelled",
            "b": "cancelled: too late",
            "b/y": "parent_cancelled: run 'r/b' was cancelled: too late",
        }
        assert world.state("r/c") == "suspended"
        mail = (await journal.mail(["r"]))["r"]
        assert sorted((found.type, found.key, found.payload) for found in mail) == [
            ("child_cancelled", "a", b'{"reason":""}'),
            ("child_cancelled", "b", b'{"reason":"too late"}'),
        ]


async def test_what_lies_below_another_that_falls_falls_with_it(world: World) -> None:
    """CH06 whichever of the two was named first, the lower one says parent_cancelled."""
    for order in (1, -1):
        world_id = "r" if order == 1 else "s"
        async with world.journal(f"w{order}") as journal:
            (run,) = await begin(journal, root(world_id))
            await write(journal, turn(run, children=(child(world_id, "a"),)))
            (kid,) = (await claim(journal, KID)).values()
            await write(journal, turn(kid, children=(child(kid.run_id, "x"),), status=Passivate()))
            names = [f"{world_id}/a", f"{world_id}/a/x"][::order]
            await write(journal, turn(run, cancels=tuple(Cancellation(name, f"why {name}") for name in names)))
            assert f"why {world_id}/a'" not in world.error(f"{world_id}/a/x")
            assert '"parent_cancelled"' in world.error(f"{world_id}/a/x").replace(" ", "")
            assert f"why {world_id}/a" in world.error(f"{world_id}/a/x")
            assert len((await journal.mail([world_id]))[world_id]) == 1


async def test_one_that_has_ended_protects_nobody_and_harms_nobody(world: World) -> None:
    """CA05 below a run that has ended only those fall that are named themselves."""
    async with world.journal() as journal:
        (run,) = await begin(journal)
        await write(journal, turn(run, children=(child("r", "a"),)))
        (kid,) = (await claim(journal, KID)).values()
        kids = (child("r/a", "x"), child("r/a", "y"))
        await write(journal, turn(kid, children=kids, status=Complete(b"1")))
        cancels = (Cancellation("r/a", "no"), Cancellation("r/a/x", "yes"))
        await write(journal, turn(run, cancels=cancels))
        assert [world.state(f"r/a{name}") for name in ("", "/x", "/y")] == ["completed", "cancelled", "pending"]
        assert '"yes"' in world.error("r/a/x")
        assert world.count("inbox") == 0, "its parent has ended, and nobody else is told"


async def test_a_thousand_are_cancelled_by_one_commit(world: World) -> None:
    """CH05 a thousand children of a map are cancelled at once."""
    async with world.journal() as journal:
        (run,) = await begin(journal)
        keys = [f"k{number}" for number in range(1_000)]
        await write(journal, turn(run, children=tuple(child("r", key) for key in keys)))
        ending = turn(run, cancels=tuple(Cancellation(f"r/{key}", key) for key in keys), status=Complete(b"1"))
        await write(journal, ending)
        rows = await journal.views.below("r")
        assert {row.state for row in rows} == {"cancelled"}
        assert {decode_failure(row.error or b"").message for row in rows} == set(keys)
        assert world.count("inbox") == 0
