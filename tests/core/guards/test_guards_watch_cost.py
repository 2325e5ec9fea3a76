"""The guard at run time: registering, giving back, and what it costs, counted in looks."""

from __future__ import annotations

import gc
import sys
import time
from typing import Any

import pytest
from tests.core.guards.turns import Turn, apply

from continuum._core.guards import Watch
from continuum._core.guards.watch import LOOKS, PROFILED_TURNS
from continuum.errors import NotDeterministic

MONITORING = sys.version_info >= (3, 12)


def clock() -> float:
    return time.time()


def harmless(number: int = 1) -> int:
    return number + 1


def test_registering_twice_changes_nothing(turn: Turn) -> None:
    turn.watch.register(apply)
    turn.watch.register(apply)
    turn.watch.register(print)
    turn.run(apply, harmless)
    with pytest.raises(NotDeterministic):
        turn.run(apply, clock)


def test_two_workflows_share_a_helper(turn: Turn) -> None:
    async def first() -> float:
        return clock()

    async def second() -> float:
        return clock()

    for workflow in (first, second, first):
        with pytest.raises(NotDeterministic):
            turn.run(workflow)


@pytest.mark.skipif(not MONITORING, reason="needs sys.monitoring")
def test_harmless_location_is_looked_at_a_bounded_number_of_times(turn: Turn) -> None:
    async def workflow(times: int) -> int:
        return sum([harmless(number) for number in range(times)])

    turn.run(workflow, 10_000)
    locations = 3  # range, harmless, sum
    assert 0 < turn.asked <= locations * LOOKS
    asked = turn.asked
    turn.run(workflow, 10_000)
    assert turn.asked - asked <= locations


@pytest.mark.skipif(not MONITORING, reason="needs sys.monitoring")
def test_closed_watch_sees_nothing_and_gives_its_tool_id_back() -> None:
    before = [sys.monitoring.get_tool(tool) for tool in range(6)]
    turn = Turn()
    assert turn.watch.active
    turn.watch.register(apply)
    turn.watch.close()
    turn.watch.close()
    assert turn.run(apply, clock) > 0
    assert turn.asked == 0
    assert [sys.monitoring.get_tool(tool) for tool in range(6)] == before


@pytest.mark.skipif(not MONITORING, reason="needs sys.monitoring")
def test_without_a_free_tool_id_nothing_is_watched() -> None:
    taken = [tool for tool in range(6) if sys.monitoring.get_tool(tool) is None]
    for tool in taken:
        sys.monitoring.use_tool_id(tool, "somebody else")
    try:
        turn = Turn()
        assert not turn.watch.active
        assert turn.run(apply, clock) > 0
        turn.watch.close()
    finally:
        for tool in taken:
            sys.monitoring.free_tool_id(tool)


@pytest.mark.skipif(not MONITORING, reason="needs sys.monitoring")
def test_code_that_is_gone_is_forgotten(turn: Turn) -> None:
    async def workflow(number: int) -> Any:
        namespace: dict[str, Any] = {"__name__": "made"}
        exec(f"def made():\n    return len('{number}')", namespace)
        return namespace["made"]()

    for number in range(20):
        turn.run(workflow, number)
    gc.collect()
    watched = turn.watch._method._looks
    assert len(watched) < 10


@pytest.mark.skipif(MONITORING, reason="turns are framed on 3.11 only")
def test_profiler_is_set_during_the_first_turns_only(turn: Turn) -> None:
    async def workflow() -> int:
        return harmless()

    for _ in range(PROFILED_TURNS):
        assert turn.watch.begin(workflow)
        assert sys.getprofile() is not None
        turn.watch.end()
        assert sys.getprofile() is None
    assert not turn.watch.begin(workflow)
    assert sys.getprofile() is None


@pytest.mark.skipif(MONITORING, reason="turns are framed on 3.11 only")
def test_profiler_of_somebody_else_stays(turn: Turn) -> None:
    def profiler(*_: Any) -> None: ...

    sys.setprofile(profiler)
    try:
        assert not turn.watch.begin(apply)
        turn.watch.end()
        assert sys.getprofile() is profiler
    finally:
        sys.setprofile(None)


def test_turns_are_framed_where_the_profiler_is_used() -> None:
    assert Watch.needs_turns is not MONITORING
