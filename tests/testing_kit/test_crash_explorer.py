"""``crash_explorer``: it finds what does not survive a crash, and agrees with what does."""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from datetime import timedelta
from random import Random
from typing import Any

import pytest
from examples import batch_orders, expense_approval

from continuum import (
    DefinitionError,
    Retry,
    activity,
    activity_info,
    as_completed,
    await_children,
    child,
    continue_as_new,
    now,
    side_effect,
    start_child,
    wait_signal,
    workflow,
)
from continuum.testing import CrashDiverged, RunStuck, crash_explorer

BOOKED: Counter[str] = Counter()
TURNS: Counter[str] = Counter()
NUMBERS = itertools.count()


def reset() -> None:
    BOOKED.clear()
    TURNS.clear()


@activity
async def book(what: str) -> str:
    BOOKED[what] += 1
    return what


@activity
async def book_once(what: str) -> str:
    BOOKED[what] = 1
    return what


@activity
def book_in_thread(what: str) -> str:
    return what


@activity(retry=Retry(max_attempts=3, initial=10))
async def fragile(what: str) -> str:
    if activity_info().attempt < 3:
        raise ValueError(what)
    return what


@activity
async def slow(what: str) -> str:
    await asyncio.sleep(3600)
    return what


@activity(start_to_close=30)
async def outside(what: str) -> str:
    reader, writer = await asyncio.open_connection(*ADDRESS)
    writer.write(f"{what}\n".encode())
    answer = await asyncio.to_thread(lambda: what.upper())
    assert (await reader.readline()).decode().strip() == answer
    writer.close()
    await writer.wait_closed()
    return answer


ADDRESS: tuple[str, int] = ("", 0)


@workflow
async def steps_flow(names: list[str]) -> list[str]:
    return [await book(name) for name in names]


@workflow
async def careful_flow(names: list[str]) -> list[str]:
    return [await book_once(name) for name in names]


@workflow
async def counting_flow(names: list[str]) -> list[str]:
    TURNS["begun"] += 1
    return [await book_once(name) for name in names]


@workflow
async def leaf_flow(name: str) -> str:
    return await book_in_thread(await fragile(name))


@workflow
async def tree_flow(names: list[str]) -> int:
    found = await asyncio.gather(*[child(leaf_flow, name) for name in names])
    await asyncio.sleep(86400 * 365)
    return len(found)


@workflow
async def racing_flow(names: list[str]) -> int:
    async for _ in as_completed([start_child(leaf_flow, name) for name in names]):
        pass
    return len(names)


@workflow
async def chain_flow(number: int) -> int:
    await book_once(str(number))
    if number < 3:
        continue_as_new(number + 1)
    return number


@workflow
async def chained_flow(number: int) -> list[int]:
    return await await_children([start_child(chain_flow, number, id="a"), start_child(chain_flow, 2, id="b")])


@workflow
async def slow_flow(name: str) -> str:
    return await slow(name)


@workflow
async def outside_flow(name: str) -> str:
    return await outside(name)


@workflow
async def drawing_flow(_: None) -> str:
    drawn = side_effect(lambda: next(NUMBERS), int)
    await book_once("drawn")
    return f"{drawn >= 0}"


@workflow
async def undecided_flow(_: None) -> str:
    TURNS["begun"] += 1
    await book_once("a" if TURNS["begun"] == 1 else "b")
    return await book_once("c")


@workflow
async def clock_flow(_: None) -> str:
    await book_once("a")
    return now().isoformat()


@workflow
async def waiting_flow(_: None) -> str:
    return await wait_signal("go", str)


@workflow
async def failing_flow(name: str) -> str:
    await book_once(name)
    raise RuntimeError(f"no {name}")


NAMES = ["a", "b", "c"]


def test_the_batch_of_orders_survives_every_crash() -> None:
    report = crash_explorer(batch_orders.batch_flow, batch_orders.Batch("b7", ["o1", "o2", "o3"]))
    assert report.kills == report.boundaries >= 6
    assert report.runs == 5
    assert report.ran_twice == {"charge": 3, "reconcile": 1}
    assert str(report).startswith(f"batch_flow, 1 worker, 5 runs: {report.boundaries} boundaries, ")
    assert "all equal; ran twice: charge (3), reconcile (1)" in str(report)


def test_parent_and_children_on_workers_of_their_own_are_killed_one_after_the_other() -> None:
    report = crash_explorer(batch_orders.batch_flow, batch_orders.Batch("b7", ["o1", "o2"]), workers=2)
    assert (report.workers, report.runs) == (2, 4)
    assert report.kills == report.boundaries > 8


@pytest.mark.parametrize("approved_after", [timedelta(hours=1), timedelta(days=2), None])
def test_the_expense_survives_every_crash(approved_after: timedelta | None) -> None:
    mails: list[str] = []

    def approve(run: Any) -> object:
        return run.signal("approve", expense_approval.Approval(True, "well spent"))

    report = crash_explorer(
        expense_approval.expense_flow,
        expense_approval.Expense("e1", "ada", "bob", 4200),
        replace={expense_approval.send_mail: lambda to, subject: mails.append(subject)},
        meanwhile=[] if approved_after is None else [(approved_after, approve)],
    )
    assert report.kills == report.boundaries >= 8
    assert report.ran_twice["send_mail"] >= 2
    assert mails.count("please approve expense e1") == report.kills + 2 + 1, "each play mails once, one twice"


@pytest.mark.parametrize(
    ("flow", "given", "runs"),
    [(tree_flow, NAMES, 4), (racing_flow, NAMES, 4), (chained_flow, 1, 3), (drawing_flow, None, 1)],
)
def test_what_a_run_may_rely_on_survives_every_crash(flow: Any, given: Any, runs: int) -> None:
    report = crash_explorer(flow, given, ledger=lambda: dict(BOOKED), reset=reset)
    assert report.runs == runs
    assert report.kills == report.boundaries >= 2


def test_a_failure_is_compared_too() -> None:
    assert crash_explorer(failing_flow, "money").kills >= 2


def test_an_activity_that_lasts_lasts_no_time() -> None:
    assert crash_explorer(slow_flow, "a").ran_twice == {"slow": 1}


def test_a_cancellation_from_outside_survives_every_crash() -> None:
    report = crash_explorer(
        tree_flow, NAMES, meanwhile=[(timedelta(days=9), lambda run: run.cancel(reason="enough"))]
    )
    assert report.kills == report.boundaries >= 2


def test_activities_may_use_sockets_and_threads_also_where_a_loop_runs() -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            writer.write(line.upper())
        writer.close()

    async def explored() -> int:
        global ADDRESS
        async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
            ADDRESS = server.sockets[0].getsockname()[:2]
            return (await asyncio.to_thread(lambda: crash_explorer(outside_flow, "a"))).kills

    assert asyncio.run(explored()) >= 2


async def test_in_async_code_it_works_in_a_thread_and_waits() -> None:
    assert crash_explorer(steps_flow, NAMES).kills >= 6


# --- what it must find


def test_a_side_effect_in_a_workflow_is_found() -> None:
    with pytest.raises(CrashDiverged, match=r"-  \{'begun': 1\}\n\+  \{'begun': 2\}") as found:
        crash_explorer(counting_flow, NAMES, ledger=lambda: dict(TURNS), reset=reset)
    assert found.value.workflow == "counting_flow"
    assert "commit 1 of the worker 'worker', which writes run: " in found.value.boundary


def test_an_activity_that_is_not_idempotent_is_found_by_the_ledger() -> None:
    with pytest.raises(CrashDiverged, match="'a': 2") as found:
        crash_explorer(steps_flow, NAMES, ledger=lambda: dict(BOOKED), reset=reset)
    assert found.value.boundary.startswith("before commit ")
    report = crash_explorer(careful_flow, NAMES, ledger=lambda: dict(BOOKED), reset=reset)
    assert report.ran_twice == {"book_once": 3}


def test_an_activity_that_must_not_run_twice_is_found_without_a_ledger() -> None:
    with pytest.raises(CrashDiverged, match="activity book-1 of run 'run' ran twice, and exactly_once names it"):
        crash_explorer(steps_flow, NAMES, exactly_once=[book])


def test_code_that_decides_otherwise_after_a_crash_is_found() -> None:
    with pytest.raises(
        CrashDiverged, match=r'-  activity_completed book_once-1 \{"input": \{"what": "a"\}'
    ) as found:
        crash_explorer(undecided_flow, reset=reset)
    assert isinstance(found.value, AssertionError)
    assert '+  activity_completed book_once-1 {"input": {"what": "b"}' in found.value.problem


def test_a_run_that_is_parked_after_a_crash_is_found() -> None:
    after_the_first_commit = next(seed for seed in range(100) if Random(seed).sample(range(4), 1) == [1])
    with pytest.raises(CrashDiverged, match="the run does not end: run 'run' is parked") as found:
        crash_explorer(undecided_flow, reset=reset, max_boundaries=1, seed=after_the_first_commit)
    assert found.value.boundary.startswith("after commit 1 ")
    assert "NonDeterminismError" in found.value.problem


def test_a_result_that_depends_on_when_it_came_is_found_unless_it_is_normalised() -> None:
    with pytest.raises(CrashDiverged, match=r"-run run: completed with \"2030"):
        crash_explorer(clock_flow)
    assert crash_explorer(clock_flow, normalise=lambda value: value if isinstance(value, dict) else "").kills >= 2


def test_what_differs_without_any_crash_is_told_as_that() -> None:
    with pytest.raises(CrashDiverged, match=r"no crash at all, played a second time(.|\n)*reset="):
        crash_explorer(steps_flow, NAMES, ledger=lambda: sum(BOOKED.values()))


def test_a_run_that_ends_in_no_way_is_stuck() -> None:
    with pytest.raises(RunStuck, match=r"nothing can come; 'run' \(running\) waits for signal go"):
        crash_explorer(waiting_flow)


def test_a_child_that_no_worker_has_is_named() -> None:
    with pytest.raises(RunStuck, match=r"'run/leaf_flow-1' \(pending\) waits for .* workflow 'leaf_flow'"):
        crash_explorer(racing_flow, ["a"], sources=[racing_flow])


def test_what_a_workflow_names_by_its_module_is_there() -> None:
    from tests.crash import parents  # at the top it would be named by every workflow here
    from tests.processes.flows import step

    report = crash_explorer(parents.fan_out, "run", replace={step: lambda label: label}, workers=2)
    assert (report.runs, report.kills) == (7, report.boundaries)


# --- bounds


def test_beyond_its_bound_it_draws_boundaries_by_seed_and_says_so() -> None:
    report = crash_explorer(steps_flow, NAMES, max_boundaries=3, seed=7)
    assert (report.kills, report.left_out) == (3, report.boundaries - 3)
    assert f"3 kills, all equal; {report.left_out} left out (max_boundaries)" in str(report)
    assert crash_explorer(steps_flow, NAMES, max_boundaries=3, seed=7) == report


def test_what_cannot_be_meant_is_refused() -> None:
    with pytest.raises(ValueError, match="workers= is 1, or 2"):
        crash_explorer(steps_flow, NAMES, workers=3)
    with pytest.raises(TypeError, match="'max_boundries'; did you mean 'max_boundaries'"):
        crash_explorer(steps_flow, NAMES, max_boundries=3)
    for few in (0, -1):  # no kill at all would be equal to everything
        with pytest.raises(ValueError, match="max_boundaries is a whole number from 1"):
            crash_explorer(steps_flow, NAMES, max_boundaries=few)
    with pytest.raises(DefinitionError, match="takes a workflow's definition"):
        crash_explorer(reset, NAMES)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="exactly_once= are activities' definitions: got 'book'"):
        crash_explorer(steps_flow, NAMES, exactly_once=["book"])  # type: ignore[list-item]
    for wrong in (5, (5, print), (timedelta(1), "go")):
        with pytest.raises(TypeError, match="meanwhile= are pairs of a timedelta and a function"):
            crash_explorer(steps_flow, NAMES, meanwhile=[wrong])  # type: ignore[list-item]
