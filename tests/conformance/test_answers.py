"""Answers to messages that were sent under an id: written with the turn that gives them, there for good."""

from __future__ import annotations

import asyncio

import pytest

from continuum._core.effects import Answer
from continuum._journal.commit import Complete, Continue, End, Fail, Fenced
from continuum.errors import RunNotFound
from tests.conformance.harness import World
from tests.journal.harness import begin, claim, entry, root, signal, soon, turn, write

YES, NO = b'{"result":1}', b'{"error":{"type":"E","message":"m"}}'


async def test_an_answer_comes_to_who_waits_and_to_who_asks_later(world: World) -> None:
    """ST10 an update is handled once and answered once; ST12 an answer outlives the run."""
    async with world.journal() as journal, world.journal(None) as client:
        (run,) = await begin(journal)
        await client.send([signal("r", delivery_id="u"), signal("r", delivery_id="v")])
        waiting = [asyncio.ensure_future(client.wait_answer("r", "u")) for _ in range(3)]
        other = asyncio.ensure_future(client.wait_answer("r", "v"))
        await write(journal, turn(run, entries=(entry(),), answers=(Answer("u", YES),)))
        assert await soon(asyncio.gather(*waiting)) == [YES] * 3
        assert not other.done()
        await write(journal, turn(run, seq=2, status=Complete(b"2"), answers=(Answer("v", NO), Answer("u", NO))))
        assert await soon(other) == NO
        assert await soon(client.wait_answer("r", "u")) == YES, "the first answer stays"


async def test_who_waits_learns_that_the_run_ended_without_an_answer(world: World) -> None:
    """ST10 an update is answered once, or its run has ended."""
    async with world.journal() as journal, world.journal(None) as client:
        done, failed, _ = await begin(journal, root("d"), root("f"), root("c"))
        waiting = [asyncio.ensure_future(client.wait_answer(run_id, "u")) for run_id in "dfc"]
        await write(journal, turn(done, status=Complete(b"1")))
        await write(journal, turn(failed, status=Fail(NO)))
        await client.cancel("c", "enough")
        ends = await soon(asyncio.gather(*waiting))
        assert ends[0] == End("completed", b"1", None)
        assert [end.state for end in ends if isinstance(end, End)] == ["completed", "failed", "cancelled"]


async def test_an_answer_survives_a_new_generation(world: World) -> None:
    """ST12 an answer outlives the generations of its run."""
    async with world.journal() as journal:
        (run,) = await begin(journal)
        await journal.send([signal("r", delivery_id="u"), signal("r", delivery_id="v")])
        started = entry("", b'{"input":null,"carried":0,"child_deadlines":{}}', "run_started")
        await write(journal, turn(run, status=Continue(1, (started,)), answers=(Answer("u", YES),)))
        assert await soon(journal.wait_answer("r", "u")) == YES
        second = run._replace(generation=2)
        await write(journal, turn(second, entries=(entry(),), answers=(Answer("v", NO),)))
        assert await soon(journal.wait_answer("r", "v")) == NO


async def test_a_fenced_commit_answers_nothing(world: World) -> None:
    """ST10 an update is answered once: not by who has lost the run."""
    async with world.journal() as journal, world.journal("x") as heir:
        (run,) = await begin(journal)
        await journal.send([signal("r", delivery_id="u")])
        await journal.release(await journal.leases())
        (taken,) = (await claim(heir)).values()
        late = turn(run, entries=(entry(),), answers=(Answer("u", NO),))
        assert await journal.commit(late) == (Fenced(),)
        await write(heir, turn(taken, entries=(entry(),), answers=(Answer("u", YES),)))
        assert await soon(journal.wait_answer("r", "u")) == YES


async def test_many_answers_of_one_large_commit_all_come(world: World) -> None:
    """ST10 an update is answered once, also in a commit that goes by itself."""
    async with world.journal() as journal:
        (run,) = await begin(journal)
        ids = [f"u{number}" for number in range(2_500)]
        await journal.send([signal("r", delivery_id=found) for found in ids])
        answers = tuple(Answer(found, b'{"result":"%b"}' % found.encode()) for found in ids)
        await write(journal, turn(run, answers=answers))
        found = await soon(asyncio.gather(*(journal.wait_answer("r", one) for one in ids)))
        assert found == [answer.payload for answer in answers]


async def test_there_is_no_answer_from_nobody(world: World) -> None:
    """ST05 to a missing run RunNotFound."""
    async with world.journal() as journal:
        for missing in ("missing", "nul\0", "\udc80"):
            with pytest.raises(RunNotFound) as caught:
                await soon(journal.wait_answer(missing, "u"))
            assert caught.value.run_id == missing


async def test_what_a_run_publishes_stays_with_it(world: World) -> None:
    """ST13 what was published is seen with no worker running, until something else is."""
    async with world.journal() as journal:
        (run,) = await begin(journal)
        await write(journal, turn(run, published=b'{"done":1}'))
        await write(journal, turn(run, entries=(entry(),)))
        found = await journal.describe("r")
        assert found is not None
        assert found.published == b'{"done":1}'
        await write(journal, turn(run, seq=2, status=Complete(b"1"), published=b"null"))
        found = await journal.describe("r")
        assert found is not None
        assert found.published == b"null"
