"""How runs end, whatever they give or raise."""

from __future__ import annotations

from typing import Any

import pytest

from continuum import (
    ActivityFailed,
    ActivityTimedOut,
    ChildFailed,
    Retry,
    activity,
    child,
    workflow,
)
from tests.conformance.cluster import Cluster, Gate, failing


class Cancelled(Exception):
    """A user's own."""


class Odd(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


BAD = {
    "another type": 1,
    "nan": float("nan"),
    "nul": "a\0b",
    "surrogate": "\udc80",
    "object": object(),
}
ERRORS = {
    "nul": lambda: ValueError("a\0b"),
    "surrogate": lambda: ValueError("\udc80"),
    "long": lambda: ValueError("x" * 3_000_000),
    "odd": Odd,
    "exit": lambda: SystemExit(3),
    "group": lambda: ExceptionGroup("some", [ValueError("\0"), Odd()]),
    "no text": lambda: ValueError(),
}


@activity
async def nothing() -> None: ...


@pytest.mark.parametrize("kind", BAD)
@pytest.mark.parametrize("live", [True, False], ids=["at once", "after a step"])
async def test_an_unencodable_result_fails_the_run(cluster: Cluster, kind: str, live: bool) -> None:
    """CR15 an unencodable result becomes a terminal failure, not a loop."""
    ran: list[int] = []

    @workflow
    async def flow() -> str:
        if not live:
            await nothing()
        ran.append(1)
        return BAD[kind]  # type: ignore[return-value]

    @workflow
    async def parent() -> str:
        try:
            return await child(flow)
        except ChildFailed as error:
            return error.type

    async with cluster.worker([flow, parent, nothing]):
        error = await failing(await cluster.start(flow))
        assert error.type == "EncodeError"
        assert await cluster.result(parent) == "EncodeError"
    assert len(ran) == 2


@pytest.mark.parametrize("kind", ERRORS)
async def test_an_odd_error_fails_the_run(cluster: Cluster, kind: str) -> None:
    """CR15 an unencodable error becomes a terminal failure, not a loop."""

    @activity
    async def raises() -> None:
        raise ERRORS[kind]()

    @workflow
    async def flow(here: bool) -> None:
        if here:
            raise ERRORS[kind]()
        await raises()

    @workflow
    async def parent(here: bool) -> str:
        try:
            await child(flow, here)
        except ChildFailed as error:
            return error.type
        return "nothing"

    expected = type(ERRORS[kind]()).__name__
    async with cluster.worker([flow, parent, raises]):
        assert (await failing(await cluster.start(flow, True))).type == expected
        found = await failing(await cluster.start(flow, False))
        assert [failure.type for failure in found.failure.chain()][:2] == ["ActivityFailed", expected]
        assert await cluster.result(parent, True) == expected
        assert await cluster.result(parent, False) == "ActivityFailed"


@pytest.mark.parametrize("kind", BAD)
async def test_an_unencodable_value_of_an_activity(cluster: Cluster, kind: str) -> None:
    """CR15 an activity's unencodable result is its failure, and is not tried again."""
    ran: list[int] = []

    @activity(retry=Retry(max_attempts=3, initial=0.001))
    async def gives() -> str:
        ran.append(1)
        return BAD[kind]  # type: ignore[return-value]

    @workflow
    async def flow() -> str:
        try:
            return await gives()
        except ActivityFailed as error:
            return error.type

    async with cluster.worker([flow, gives]):
        assert await cluster.result(flow) == "EncodeError"
    assert ran == [1]


async def test_oversized_errors_are_cut(cluster: Cluster) -> None:
    """AC08 oversized or unencodable errors are sanitised."""

    @activity
    async def raises() -> None:
        raise ValueError("long \0 \udc80" + "x" * 5_000_000)

    @workflow
    async def flow() -> str:
        try:
            await raises()
        except ActivityFailed as error:
            return error.message
        return ""

    async with cluster.worker([flow, raises]):
        message = await cluster.result(flow)
    assert message.startswith("long ")
    assert len(message) < 100_000


async def test_a_users_error_called_cancelled(cluster: Cluster) -> None:
    """CA08 `cancelled` is not confused with a user error of that name."""

    @workflow(name="cancelled")
    async def flow() -> None:
        raise Cancelled("cancelled")

    @workflow
    async def parent() -> str:
        try:
            await child(flow)
        except ChildFailed as error:
            return f"failed: {error.type}"
        return ""

    async with cluster.worker([flow, parent]):
        run = await cluster.start(flow)
        assert (await failing(run)).type == "Cancelled"
        assert (await run.describe()).state == "failed"
        assert await cluster.result(parent) == "failed: Cancelled"


# --- activities


async def test_retries(cluster: Cluster) -> None:
    """AC01 retry with backoff, jitter, cap, max attempts, non-retryable types."""
    attempts: dict[str, int] = {}

    @activity(
        retry=Retry(max_attempts=4, initial=0.01, backoff=2, max_interval=0.02, non_retryable=("LookupError",))
    )
    async def flaky(name: str, good_at: int) -> int:
        attempts[name] = attempts.get(name, 0) + 1
        if attempts[name] < good_at:
            raise KeyError(name) if name == "final" else ValueError(name)
        return attempts[name]

    @workflow
    async def flow(name: str, /) -> Any:
        try:
            return await flaky(name, 3 if name == "good" else 99)
        except ActivityFailed as error:
            return error.type

    async with cluster.worker([flow, flaky]):
        assert await cluster.result(flow, "good") == 3
        assert await cluster.result(flow, "bad") == "ValueError"
        run = await cluster.start(flow, "final")
        assert await run.result(timeout=10) == "KeyError"
    assert attempts == {"good": 3, "bad": 4, "final": 1}


async def test_an_attempt_that_takes_too_long(cluster: Cluster) -> None:
    """AC02 start-to-close and schedule-to-close timeouts."""
    gate = Gate()

    @workflow
    async def flow(options: dict[str, float]) -> str:
        try:
            await gate.held.with_options(**options, retry=Retry(max_attempts=2, initial=0.01))()
        except ActivityTimedOut as error:
            return error.activity
        return ""

    async with cluster.worker([flow, gate.held]):
        assert await cluster.result(flow, {"start_to_close": 0.05}) == "held"
        assert gate.ended == ["cancelled"] * 2
        assert await cluster.result(flow, {"schedule_to_close": 0.05}) == "held"


async def test_outside_a_workflow_it_is_a_plain_call(cluster: Cluster) -> None:
    """AC09 calling it outside a workflow is a plain call."""

    @activity
    async def later(n: int) -> int:
        return n + 1

    @activity
    def now(n: int) -> int:
        return n + 1

    @activity
    async def calls_others(n: int) -> list[int]:
        return [await later(n), now(n)]

    @workflow
    async def flow(n: int) -> list[int]:
        return [*await calls_others(n), await later(n), await now(n)]  # type: ignore[misc]

    assert await later(1) == now(1) == 2
    assert await calls_others(1) == [2, 2]
    assert await flow(1) == [2] * 4
    async with cluster.worker([flow, calls_others, later, now]):
        run = await cluster.start(flow, 1)
        assert await run.result(timeout=10) == [2] * 4
        keys = [key for _, key in await cluster.entries(run.id)]
        assert keys == ["calls_others-1", "later-1", "now-1"], "calls in an activity are no activities"
