"""What a failing test is told: where the workflow failed, what it waits for, what is under way, what to do."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any, cast

import pytest

from continuum import RunFailed, activity, wait_signal, workflow
from continuum._core.failure import own_frames, where
from continuum.errors import Failure
from continuum.testing import (
    RunStuck,
    SyncWorkflowEnvironment,
    WorkflowEnvironment,
    assert_replays,
    load_history,
    save_history,
)
from tests.testing_kit import flows
from tests.testing_kit.flows import (
    failing_flow,
    parent_flow,
    price,
    price_flow,
    report_flow,
    signal_flow,
    slow_report,
    year_flow,
)
from tests.testing_kit.test_plugin import folder as folder
from tests.testing_kit.test_plugin import pytest_in

SOON = 0.05
BUGGY_TESTS = """
import pytest
from continuum import workflow

@workflow
async def buggy_flow(number: int) -> int:
    return {"a": number}["b"]

pytestmark = pytest.mark.continuum([buggy_flow])

async def test_async(continuum_env):
    assert await (await continuum_env.start(buggy_flow, 1)).result() == 2

def test_plain(continuum_env_sync):
    assert continuum_env_sync.start(buggy_flow, 1).result() == 2
"""
FRAMES = (
    '  File "/home/ada/shop/flows.py", line 7, in order_flow\n    return orders["b"]\n',
    '  File "/usr/lib/python3.11/asyncio/taskgroups.py", line 1, in __aexit__\n    raise me\n',
    '  File "/venv/lib/python3.11/site-packages/shop/mail.py", line 1, in send\n',
    '  File "/venv/lib/python3.11/site-packages/continuum/_core/loop.py", line 1, in drain\n',
)


def test_a_failing_test_shows_its_own_line_and_where_the_workflow_failed(folder: Path) -> None:
    (folder / "test_buggy.py").write_text(BUGGY_TESTS)
    said = pytest_in(folder)
    assert "2 failed" in said, said
    assert said.count('test_buggy.py", line 7, in buggy_flow') >= 2  # the summary has it again where CI is set
    assert "runs.py" not in said
    assert "passing.py" not in said
    assert "runners.py" not in said


def test_frames_of_engine_and_libraries_are_left_out_unless_there_are_no_others() -> None:
    author, standard, library, engine = FRAMES
    assert own_frames("".join(FRAMES)) == author
    assert own_frames(engine + library + standard) == library + standard
    assert own_frames(engine) == own_frames("") == ""


def test_the_innermost_failure_is_told_first_and_the_outermost_after_it() -> None:
    inner = Failure("KeyError", "'b'", FRAMES[0])
    middle = Failure("ValueError", "m", FRAMES[0], inner)
    assert where(Failure("ActivityFailed", "a", FRAMES[2], middle)) == (
        f"{FRAMES[0]}KeyError: 'b'\n{FRAMES[2]}ActivityFailed: a"
    )
    assert where(Failure("ExceptionGroup", "g", FRAMES[3], None, (inner,))) == f"{FRAMES[0]}KeyError: 'b'"
    assert where(Failure("ValueError", "m")) == ""


async def test_run_failed_says_where() -> None:
    async with WorkflowEnvironment([flows]) as env:
        with pytest.raises(RunFailed) as failed:
            await (await env.start(failing_flow, "no")).result()
    assert "in failing_flow" in failed.value.__notes__[0]
    assert "_core" not in failed.value.__notes__[0]


# --- bounds


async def hang(*_: object) -> Any:
    await asyncio.Event().wait()


async def test_an_activity_that_hangs_is_named_when_the_timeout_has_passed() -> None:
    async with WorkflowEnvironment([flows]) as env:
        env.replace(slow_report, hang)
        run = await env.start(report_flow, "r", id="r")
        with pytest.raises(TimeoutError) as late:
            await run.result(timeout=SOON)
        assert "it waits for activity slow_report-1" in str(late.value)
        assert "activity slow_report-1 of run 'r', attempt 1, under way for" in str(late.value)
        assert f"env.now is {env.now}" in str(late.value)


async def test_an_activity_that_hangs_ends_the_wait_by_itself() -> None:
    async with WorkflowEnvironment([flows], stuck_after=SOON) as env:
        env.replace(slow_report, hang)
        run = await env.start(report_flow, "r", id="r")
        with pytest.raises(RunStuck, match="run 'r' has not gone on for stuck_after") as stuck:
            await run.result()
        assert stuck.value.waiting_for == "activity slow_report-1"
        assert "activity slow_report-1 of run 'r', attempt 1" in str(stuck.value)
        with pytest.raises(RunStuck, match="the test has not gone on"):
            await env.until_waiting(run)


async def test_a_planned_action_that_hangs_ends_the_wait_by_itself() -> None:
    async with WorkflowEnvironment([flows], stuck_after=SOON) as env:
        run = await env.start(signal_flow)
        env.after(1, hang)
        with pytest.raises(RunStuck, match=r"planned action hang \(test_words.py:\d+\), under way for"):
            await run.result()


async def test_many_short_activities_may_take_longer_than_the_bound_altogether() -> None:
    @activity
    async def short() -> None:
        await asyncio.sleep(0.06)

    @workflow
    async def many_flow() -> int:
        for _ in range(10):
            await short()
        return 10

    async with WorkflowEnvironment([many_flow, short], stuck_after=0.5) as env:
        assert await (await env.start(many_flow)).result() == 10


async def test_endless_timers_end_the_wait_by_themselves() -> None:
    @workflow
    async def endless_flow() -> None:
        while True:
            await asyncio.sleep(60)

    async with WorkflowEnvironment([endless_flow], max_jumps=20) as env:
        run = await env.start(endless_flow, id="r")
        with pytest.raises(RunStuck, match="run 'r' has not ended within max_jumps=20 jumps of time"):
            await run.result()
        await env.sleep(20 * 60)
        with pytest.raises(RunStuck, match="the test has not ended within max_jumps=20"):
            await env.sleep(40 * 60)


async def test_messages_that_nobody_takes_are_named() -> None:
    async with WorkflowEnvironment([flows]) as env:
        run = await env.start(price_flow, False)
        await env.client.get_run(run.id).signal("goo")
        with pytest.raises(RunStuck) as stuck:
            await run.update(price, 5)
        assert "unread: signal goo (1)" in str(stuck.value)
        assert "nobody handles: update price (1)" in str(stuck.value)
        assert stuck.value.waiting_for == "signal go"


# --- mistakes


async def test_an_environment_that_is_not_opened_says_how() -> None:
    env = WorkflowEnvironment([flows])
    with pytest.raises(RuntimeError, match=r"open it: async with WorkflowEnvironment\(...\) as env"):
        await env.start(year_flow, 1)


def test_without_a_loop_of_asyncio_it_is_named() -> None:
    env = WorkflowEnvironment([flows])
    with pytest.raises(RuntimeError, match="needs a running asyncio event loop; trio has none"):
        env.__aenter__().send(None)


def test_a_sync_environment_has_a_client() -> None:
    with SyncWorkflowEnvironment([flows]) as env:
        run = env.client.start("signal_flow", id="r")
        env.client.signal("r", "go", True)
        assert run.result() is True
        assert [found.id for found in env.client.list_runs()] == ["r"]


def test_an_unknown_option_is_told_the_nearest_of_the_environments_own() -> None:
    with pytest.raises(TypeError, match="WorkflowEnvironment has no option 'max_jump'; did you mean 'max_jumps'"):
        WorkflowEnvironment([flows], max_jump=3)
    with pytest.raises(TypeError, match=r"options are: blocked_after, max_activities, .*stuck_after, threads"):
        WorkflowEnvironment([flows], xyz=3)


async def test_a_replaced_child_of_the_wrong_type_is_a_workflow_in_words() -> None:
    async with WorkflowEnvironment([flows]) as env:
        env.replace(flows.order_flow, cast("Any", lambda number: "four"))
        with pytest.raises(RunFailed, match="result of what replaces workflow 'order_flow'"):
            await (await env.start(parent_flow, 2)).result()


async def test_a_history_that_does_not_replay_names_its_file_and_the_ways_out(tmp_path: Path) -> None:
    @workflow(name="signal_flow")
    async def other_flow() -> bool:
        return await wait_signal("stop", bool)

    path = tmp_path / "run.json"
    async with WorkflowEnvironment([flows]) as env:
        run = await env.start(signal_flow)
        await run.signal("go", True)
        await run.result()
        with pytest.raises(FileNotFoundError, match="is no folder: make it"):
            await save_history(run, tmp_path / "missing" / "run.json")
        await save_history(run, path)
    with pytest.raises(AssertionError) as failed:
        assert_replays(other_flow, path)
    assert str(path) in str(failed.value)
    assert "patched()" in str(failed.value)
    with pytest.raises(AssertionError, match=r"ways out: .*@workflow\(version="):
        assert_replays(other_flow, load_history(path))
