"""Patches: changing the code of runs that are under way."""

import asyncio

from tests.core.harness import Run, recorded

from continuum import activity, patched, workflow
from continuum._core.commands import ApplyPatch


@activity
async def charge(order_id: str) -> str:
    return order_id


@activity
async def check(order_id: str) -> str:
    return order_id


@activity
async def pack(order_id: str) -> str:
    return order_id


@workflow(name="order")
async def before() -> str:
    await charge("o1")
    return await pack("o1")


@workflow(name="order")
async def after() -> str:
    if patched("check-first"):
        await check("o1")
    await charge("o1")
    return await pack("o1")


@workflow(name="order")
async def without() -> str:
    await check("o1")
    await charge("o1")
    return await pack("o1")


def done(name: str) -> object:
    key = f"{name}-1"
    return recorded("activity_completed", key, name=name, input={"order_id": "o1"}, result="ok")


PATCH = recorded("patch_applied", "check-first")


def test_a_fresh_run_takes_the_new_path_and_journals_it() -> None:
    """RP10: a new run takes the new path."""
    run = Run(after)
    assert run.commands[0] == ApplyPatch("check-first")
    assert run.commands[1].key == "check-1"


def test_a_recorded_patch_is_taken_again() -> None:
    """RP10: the first decision wins for the rest of the run."""
    run = Run.replayed(after, None, PATCH, done("check"))
    assert run.command.key == "charge-1"


def test_a_run_that_passed_the_point_before_the_patch_keeps_the_old_path() -> None:
    """RP10: old runs keep the old path."""
    old = Run(before)
    old.completed("charge-1", "ok")
    run = Run.replayed(after, None, *old.journal)
    assert run.command.key == "pack-1"
    run.completed("pack-1", "ok")
    assert run.result == "ok"


def test_an_old_run_that_had_not_come_to_the_point_takes_the_new_path() -> None:
    @workflow
    async def flow() -> list[bool]:
        await charge("o1")
        return [patched("later")]

    run = Run.replayed(flow, None, recorded("activity_started", "charge-1", attempt=1))
    run.completed("charge-1", "ok")
    assert run.commands[0] == ApplyPatch("later")
    assert run.result == [True]


def test_the_first_answer_holds_for_the_whole_generation() -> None:
    """RP10: a patch asked twice answers alike, live, old and replayed."""

    @workflow
    async def flow() -> list[bool]:
        first = patched("p")
        await charge("o1")
        return [first, patched("p"), patched("p")]

    new = Run(flow)
    new.restart().completed("charge-1", "ok")
    assert new.result == [True, True, True]
    assert [entry.type for entry in new.journal] == ["patch_applied", "activity_completed"]
    old = Run.replayed(flow, None, done("charge"))
    assert old.result == [False, False, False]


def test_an_old_run_answers_no_also_where_it_asks_live_for_the_first_time_again() -> None:
    @workflow
    async def flow() -> list[bool]:
        answers = [patched("p")]
        await charge("o1")
        answers.append(patched("p"))
        await pack("o1")
        return answers

    run = Run.replayed(flow, None, done("charge"))
    run.restart().completed("pack-1", "ok")
    assert run.result == [False, False]
    assert not [entry for entry in run.journal if entry.type == "patch_applied"]


def test_removing_a_patch_call_is_no_divergence_for_runs_on_the_new_path() -> None:
    """RP10: once all runs are on the new path, the call can go."""
    run = Run.replayed(without, None, PATCH, done("check"), done("charge"))
    assert run.command.key == "pack-1"
    run.completed("pack-1", "ok")
    assert run.result == "ok"


def test_removing_the_new_path_of_a_run_that_took_it_diverges() -> None:
    run = Run.replayed(before, None, PATCH, done("check"), allow_fault=True)
    assert "check-1" in run.divergence.recorded


def test_patches_of_one_turn_are_told_apart() -> None:
    @workflow
    async def flow() -> list[bool]:
        answers = [patched("a"), patched("b")]
        await charge("o1")
        return answers

    run = Run.replayed(flow, None, recorded("patch_applied", "b"), done("charge"))
    assert run.result == [False, True]


def test_a_patch_is_one_for_all_tasks() -> None:
    @workflow
    async def flow() -> list[bool]:
        async def ask() -> bool:
            await asyncio.sleep(0)
            return patched("p")

        return await asyncio.gather(ask(), ask())

    run = Run(flow)
    assert [c for c in run.commands if isinstance(c, ApplyPatch)] == [ApplyPatch("p")]
    assert run.result == [True, True]


def test_the_next_generation_decides_anew() -> None:
    run = Run(after, generation=2)
    assert run.commands[0] == ApplyPatch("check-first")


def test_a_patch_with_an_empty_name_is_refused() -> None:
    @workflow
    async def flow() -> None:
        patched("")

    assert Run(flow).failure.type == "InvalidId"
