"""Journal time, and chance derived from where a task stands: no entries, the same on every replay."""

import asyncio
import datetime as dt
import uuid

from tests.core.harness import START_US, Run, recorded

from continuum import activity, now, random, uuid4, workflow
from continuum._core.commands import CompleteRun


@activity
async def fetch(url: str) -> str:
    return url


@workflow
async def times() -> list[str]:
    first = now()
    await fetch("here")
    second, third = now(), now()
    assert second is third or second == third
    return [first.isoformat(), second.isoformat()]


def test_now_is_the_time_of_the_event_and_stands_still_in_a_turn() -> None:
    run = Run(times)
    run.completed("fetch-1", "page")
    assert run.result == ["2026-01-01T00:00:00+00:00", "2026-01-01T00:00:01+00:00"]


def test_now_is_the_recorded_time_on_replay() -> None:
    done = recorded("activity_completed", "fetch-1", name="fetch", input={"url": "here"}, result="page", at=7.5)
    run = Run.replayed(times, None, done)
    assert run.result == ["2026-01-01T00:00:00+00:00", "2026-01-01T00:00:07.500000+00:00"]


def test_now_never_goes_back_though_an_event_is_stamped_earlier() -> None:
    @workflow
    async def flow() -> bool:
        before = now()
        await fetch("here")
        return now() >= before

    run = Run(flow)
    run.now_us = START_US - 60_000_000
    run.completed("fetch-1", "page")
    assert run.result is True


def test_now_is_aware_and_in_utc() -> None:
    @workflow
    async def flow() -> bool:
        return now().tzinfo is dt.UTC

    assert Run(flow).result is True


@workflow
async def chances() -> list[str]:
    async def draw() -> list[str]:
        await asyncio.sleep(0)
        return [str(random().random()), str(uuid4())]

    mine = [str(random().random()), str(uuid4()), str(uuid4())]
    drawn = await asyncio.gather(draw(), draw())
    await fetch("here")
    return [*mine, *drawn[0], *drawn[1], str(random().randint(1, 10**9)), str(uuid4())]


def finished(**options: object) -> list[str]:
    run = Run(chances, **options)
    run.restart().completed("fetch-1", "page")
    return run.result


def test_chance_is_the_same_for_the_same_run_and_differs_between_tasks_and_draws() -> None:
    drawn = finished()
    assert drawn == finished()
    assert len(set(drawn)) == len(drawn)


def test_chance_differs_between_runs_and_generations() -> None:
    draws = [finished(), finished(id="run-2"), finished(generation=2)]
    assert len({value for drawn in draws for value in drawn}) == sum(map(len, draws))


def test_chance_leaves_no_entry_and_goes_on_after_a_restart() -> None:
    run = Run(chances)
    assert run.journal == []
    run.restart().completed("fetch-1", "page")
    assert run.result == finished()


def test_chance_is_pinned_for_all_releases() -> None:
    """A journal of today holds ids made of these."""

    @workflow
    async def flow() -> list[object]:
        return [str(uuid4()), random().random(), random().random()]

    run = Run(flow)
    identifier, first, second = run.result
    assert uuid.UUID(identifier).version == 4
    assert identifier == "56c821d3-b6eb-47a4-9744-661190635caa"
    assert (first, second) == (0.7204882807051861, 0.7635175694229218)


def test_a_change_in_one_task_moves_no_draw_of_another() -> None:
    @workflow
    async def one() -> str:
        async def noisy() -> None: ...

        return (await asyncio.gather(noisy(), quiet()))[1]

    @workflow
    async def other() -> str:
        async def noisy() -> None:
            uuid4(), random().random()

        return (await asyncio.gather(noisy(), quiet()))[1]

    async def quiet() -> str:
        return f"{uuid4()} {random().random()}"

    assert Run(one).result == Run(other).result


def test_random_is_a_random_with_all_its_methods() -> None:
    @workflow
    async def flow() -> list[object]:
        dice = random()
        return [dice.choice("abc") in "abc", len(dice.sample(range(10), 3)), random() is dice]

    run = Run(flow)
    assert run.command == CompleteRun(b"[true,3,true]")
