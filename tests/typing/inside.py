# pyright: reportUnnecessaryTypeIgnoreComment=true
"""The types of what every workflow may call: signals, conditions, time, chance. Read, never run."""

import datetime as dt
import logging
import random as chance
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, Never, assert_type

from continuum import (
    ActivityFailed,
    ActivityInfo,
    Failure,
    ParentRef,
    RunInfo,
    Update,
    activity_info,
    continue_as_new,
    deterministic,
    log,
    now,
    on_update,
    parent,
    patched,
    random,
    run_info,
    set_state,
    side_effect,
    uuid4,
    wait_condition,
    wait_signal,
    workflow,
)


@dataclass(frozen=True)
class Approval:
    by: str
    granted: bool


async def a_signal_has_the_type_that_was_asked_for() -> None:
    assert_type(await wait_signal("approve", Approval), Approval)
    assert_type(await wait_signal("approve", Approval, timeout=3600), Approval)
    assert_type(await wait_signal("approve", type=bool, timeout=dt.timedelta(hours=1)), bool)
    assert_type(await wait_signal("approve"), Any)
    assert_type(await wait_signal("approve", timeout=0.5), Any)
    await wait_signal("approve", Approval, timout=3)  # type: ignore[call-overload]
    await wait_signal(Approval)  # type: ignore[call-overload]


async def a_condition_is_any_predicate(done: list[int]) -> None:
    await wait_condition(lambda: len(done) == 3)
    await wait_condition(lambda: done, timeout=60)
    await wait_condition(done)  # type: ignore[arg-type]


def time_and_chance_are_the_standard_library_s() -> None:
    assert_type(now(), dt.datetime)
    assert_type(random(), chance.Random)
    assert_type(random().randint(1, 6), int)
    assert_type(uuid4(), uuid.UUID)
    assert_type(patched("new-fee"), bool)
    log.info("charged %s", "o1")
    logger: logging.LoggerAdapter[logging.Logger] = log
    del logger


def a_side_effect_has_its_function_s_type(read: Callable[[], dict[str, int]]) -> None:
    assert_type(side_effect(lambda: 3), int)
    assert_type(side_effect(read), dict[str, int])
    assert_type(side_effect(read, type=dict[str, int]), dict[str, int])
    side_effect(3)  # type: ignore[arg-type]


def code_after_continue_as_new_is_unreachable(value: int) -> Never:
    continue_as_new(value)


@workflow
async def countdown(left: int) -> Literal["done"]:
    if left > 0:
        continue_as_new(left - 1)
    return "done"


def after_continue_as_new_a_name_is_narrowed(value: int | None) -> int:
    if value is None:
        continue_as_new(0)
    assert_type(value, int)
    return value


def a_branch_that_continues_needs_no_return(kind: Literal["again", "stop"]) -> str:
    if kind == "again":
        continue_as_new()
    assert_type(kind, Literal["stop"])
    return kind


@deterministic
def fee(cents: int, *, share: float = 0.02) -> int:
    return round(cents * share)


def a_marked_helper_keeps_its_types() -> None:
    assert_type(fee(100), int)
    assert_type(fee(100, share=0.1), int)
    fee("100")  # type: ignore[arg-type]


def a_failure_tells_the_original() -> None:
    try:
        raise ActivityFailed("charge", Failure("ValueError", "boom"))
    except ActivityFailed as error:
        assert_type(error.activity, str)
        assert_type(error.type, str)
        assert_type(error.message, str)
        assert_type(error.traceback, str)
        assert_type(error.failure, Failure)
        assert_type(error.failure.cause, Failure | None)
        assert_type(error.root_cause, Failure)
        assert_type([step.message for step in error.failure.chain()], list[str])


set_address = Update("set_address", Approval, int)


@workflow(updates=[set_address], state=Approval)
async def answers_updates() -> None:
    async def change(approval: Approval) -> int:
        return len(approval.by)

    async def wrong(approval: Approval) -> str:
        return approval.by

    def sync(approval: Approval) -> int:
        return 1

    def known(approval: Approval) -> None: ...

    on_update(set_address, change)
    on_update(set_address, change, validator=known)
    on_update(set_address, wrong)  # type: ignore[arg-type]
    on_update(set_address, sync)  # type: ignore[arg-type]
    set_state(Approval("me", True))


def code_knows_where_it_runs() -> None:
    assert_type(run_info(), RunInfo)
    assert_type(run_info().attributes, dict[str, Any])
    assert_type(parent(), ParentRef | None)
    assert_type(activity_info(), ActivityInfo)
    if above := parent():
        above.signal("progress", {"done": 1})
        above.signal(1)  # type: ignore[arg-type]
