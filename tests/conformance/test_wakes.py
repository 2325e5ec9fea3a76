"""Who wakes a run that has left memory: who sends to it, or who let it leave, each without the other's help."""

from __future__ import annotations

from continuum._journal.commit import Claimed, Passivate
from continuum._journal.protocol import Journal
from tests.conformance.harness import World
from tests.journal.harness import begin, claim, signal, turn, write
from tests.until import until


async def wakes(journal: Journal) -> dict[str, Claimed]:
    """Claim until somebody is due."""

    async def due() -> dict[str, Claimed]:
        return await claim(journal)

    return await until(due)


async def test_a_message_wakes_a_run_that_left_before(world: World) -> None:
    """LF15 a message after a passivation: its sender wakes the run."""
    async with world.journal("a") as one:
        (run,) = await begin(one)
        await write(one, turn(run, status=Passivate()))
    async with world.journal(None) as client, world.journal("b") as other:  # "a" has said what it had to say
        await client.send([signal("r")])
        assert set(await wakes(other)) == {"r"}


async def test_a_run_that_leaves_beside_its_mail_wakes_at_once(world: World) -> None:
    """LF15 a message before a passivation: who lets the run leave looks at its inbox once more."""
    async with world.journal("a") as one, world.journal("b") as other:
        (run,) = await begin(one)
        async with world.journal(None) as client:
            await client.send([signal("r")])  # it wakes nobody: the run is held
        await write(one, turn(run, status=Passivate()))
        assert set(await wakes(other)) == {"r"}
