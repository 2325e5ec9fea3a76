"""What the environment does about code that does not decide the same again."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from pathlib import Path

import pytest

from continuum import child, now, patched, uuid4, wait_signal, workflow
from continuum.testing import (
    RunParked,
    WorkflowEnvironment,
    assert_history,
    assert_replays,
    load_history,
    read_history,
    save_history,
)
from tests.testing_kit import flows
from tests.testing_kit.flows import generations_flow, mail_flow, order_flow, parent_flow, send_mail, year_flow

turns: list[int] = []


def how_often() -> int:
    """What no replay gives again: it counts how often it was called."""
    turns.append(1)
    return len(turns)


@pytest.fixture(autouse=True)
def none_so_far() -> None:
    turns.clear()


@workflow
async def fickle_flow() -> int:
    """Asks for another activity whenever it is replayed."""
    name = f"call-{how_often()}"
    await asyncio.sleep(60)
    await send_mail(name)
    await asyncio.sleep(60)
    return 1


@workflow
async def fickle_result_flow() -> int:
    await asyncio.sleep(60)
    return how_often()


async def test_a_run_that_does_not_replay_fails_the_test_that_waits_for_it() -> None:
    async with WorkflowEnvironment([fickle_flow]) as env:
        env.replace(send_mail, lambda address, subject: "sent")
        run = await env.start(fickle_flow)
        with pytest.raises(AssertionError, match=r"(?s)does not replay.*recorded:.*call-1.*decided:.*call-2"):
            await run.result()


async def test_a_result_that_differs_is_found_at_the_end_of_the_block() -> None:
    async def use() -> None:
        async with WorkflowEnvironment([fickle_result_flow]) as env:
            await env.start(fickle_result_flow)
            await env.sleep(120)

    with pytest.raises(AssertionError, match=r"(?s)recorded: the result 1\ndecided:  to complete with 2"):
        await use()


async def test_a_run_that_is_parked_fails_the_test_that_waits_for_it_with_the_difference() -> None:
    async with WorkflowEnvironment([fickle_flow]) as env:
        env.replace(send_mail, lambda address, subject: "sent")
        run = await env.start(fickle_flow)
        await env.sleep(90)
        await env.restart()
        with pytest.raises(RunParked, match=r"(?s)recorded:.*call-1.*decided:.*call-2"):
            await run.result()


async def test_a_parked_run_that_nobody_looked_at_fails_the_test() -> None:
    async def use() -> None:
        async with WorkflowEnvironment([fickle_flow]) as env:
            env.replace(send_mail, lambda address, subject: "sent")
            await env.start(fickle_flow)
            await env.sleep(90)
            await env.restart()
            await env.sleep(1)

    with pytest.raises(RunParked):
        await use()


async def test_what_a_replay_at_every_step_finds_parks_the_run() -> None:
    async with WorkflowEnvironment([fickle_flow], replay_every_step=True) as env:
        env.replace(send_mail, lambda address, subject: "sent")
        run = await env.start(fickle_flow)
        with pytest.raises(RunParked):
            await run.result()


async def test_good_workflows_survive_replays_at_every_step() -> None:
    async with WorkflowEnvironment([flows], replay_every_step=True) as env:
        runs = [await env.start(parent_flow, 3), await env.start(order_flow, 3)]
        assert [await run.result() for run in runs] == [10, 9]
        assert await (await env.start(generations_flow, 3)).result() == 0
        assert await (await env.start(year_flow, 30)).result() == 30


async def test_a_restart_in_the_middle_repeats_nothing() -> None:
    async with WorkflowEnvironment([flows]) as env:
        env.replace(order_flow, lambda number: number)
        run = await env.start(parent_flow, 3)
        assert await env.until_waiting(run) == ""
        await env.restart()
        assert await run.result() == 4
        assert len(env.calls(order_flow)) == 1


async def test_an_activity_under_way_at_a_restart_runs_again() -> None:
    async with WorkflowEnvironment([flows]) as env:
        cancelled: list[str] = []

        async def hang_once(address: str, subject: str) -> str:
            try:
                await env.sleep(600 if len(env.calls(send_mail)) == 1 else 1)
            except asyncio.CancelledError:
                cancelled.append(address)
                raise
            return "sent"

        env.replace(send_mail, hang_once)
        run = await env.start(mail_flow, "ada")
        await env.sleep(5)
        await env.restart()
        assert cancelled == ["ada"]
        assert await run.result() == "sent"
        assert env.now - env.started == timedelta(seconds=6)


# --- a deploy


@workflow(name="shop", version=1)
async def old_shop() -> str:
    await asyncio.sleep(60)
    return "old"


@workflow(name="shop", version=1)
async def patched_shop() -> str:
    await asyncio.sleep(60)
    if patched("greet"):
        return "new"
    return "old"


@workflow(name="shop", version=1)
async def family_shop() -> str:
    return str(await child(order_flow, 5))


async def test_a_deploy_is_a_restart_with_other_definitions() -> None:
    async with WorkflowEnvironment([old_shop]) as env:
        before = await env.start(old_shop)
        await env.until_waiting(before)
        await env.restart([patched_shop])
        after = await env.start(patched_shop)
        assert await before.result() == await after.result() == "new"


async def test_a_deploy_that_breaks_runs_parks_them() -> None:
    async with WorkflowEnvironment([family_shop, order_flow]) as env:
        run = await env.start(family_shop)
        assert await env.until_waiting(run) == "child order_flow-1 (order_flow)"
        await env.restart([old_shop, order_flow])
        with pytest.raises(RunParked, match=r"(?s)recorded:.*order_flow.*decided:") as caught:
            await run.result()
        assert caught.value.run_id == run.id


# --- recorded runs


@workflow(signals={"name": str})
async def greet_flow(greeting: str) -> dict[str, str]:
    name = await wait_signal("name", str, timeout=3600)
    await send_mail(name)
    return {"greeting": f"{greeting} {name}", "id": str(uuid4()), "at": now().isoformat()}


@workflow(name="greet_flow", signals={"name": str})
async def other_greet_flow(greeting: str) -> dict[str, str]:
    name = await wait_signal("name", str, timeout=3600)
    await send_mail(name, "another subject")
    return {}


async def test_a_saved_history_is_read_back_and_replays(tmp_path: Path) -> None:
    path = tmp_path / "greet.json"
    async with WorkflowEnvironment([greet_flow]) as env:
        env.replace(send_mail, lambda address, subject: "sent")
        run = await env.start(greet_flow, "hello")
        await run.signal("name", "Ada")
        await run.result()
        saved = await save_history(run, path)
        assert saved == await read_history(run)
        assert_replays(greet_flow, saved)  # inside a task as well
    assert load_history(path) == saved
    assert_replays(greet_flow, path)
    with pytest.raises(AssertionError, match=r"(?s)recorded:.*hello.*decided:.*another subject"):
        assert_replays(other_greet_flow, path)
    with pytest.raises(AssertionError, match="is another one"):
        assert_replays(mail_flow, path)


async def test_a_run_that_has_not_ended_replays_up_to_where_it_is() -> None:
    async with WorkflowEnvironment([flows]) as env:
        run = await env.start(year_flow, 5)
        await env.sleep(timedelta(days=2))
        found = await read_history(run)
        assert (found.state, len(found.events)) == ("running", 2)
        assert_replays(year_flow, found)


async def test_all_generations_replay() -> None:
    async with WorkflowEnvironment([flows]) as env:
        run = await env.start(generations_flow, 3)
        await run.result()
        found = await read_history(run)
    assert found.generation == 4
    assert_replays(generations_flow, found)


def test_another_file_is_no_history(tmp_path: Path) -> None:
    path = tmp_path / "other.json"
    for text in ("{}", "[]", "no json", '{"format": 99}'):
        path.write_text(text)
        with pytest.raises(ValueError, match="no history"):
            load_history(path)


async def test_a_journal_that_differs_is_shown_as_a_diff() -> None:
    async with WorkflowEnvironment([flows]) as env:
        env.replace(send_mail, lambda address, subject: "sent")
        run = await env.start(mail_flow, "ada")
        await run.result()
        events = await run.history()
    assert_history(events, [("activity_completed", "send_mail-1", {"result": "sent"})])
    with pytest.raises(AssertionError) as caught:
        assert_history(
            events, [("timer_fired", "timer-1"), ("activity_completed", "send_mail-1", {"result": "no"})]
        )
    assert str(caught.value).splitlines()[1:] == [
        "- timer_fired timer-1",
        '- activity_completed send_mail-1 {"result": "no"}',
        "+ activity_completed send_mail-1",
    ]
