"""Waiting for a run: its result, how it failed, why it was cancelled, or what it waits for."""

from __future__ import annotations

import asyncio
import contextlib
from datetime import timedelta
from typing import TypeVar

import pytest

from continuum import (
    Client,
    DatabaseUnreachable,
    DecodeError,
    Failure,
    RemoteError,
    RunCancelled,
    RunFailed,
    RunHandle,
)
from continuum._core.failure import encode_failure
from continuum._journal.commit import Announcement, Claimed, Complete, Fail, Park, Passivate
from continuum._journal.journal import PostgresJournal
from tests.client.flows import Order, Receipt, audit_flow, complete, fail, order_flow, take
from tests.journal.harness import child, claim, soon, strike, turn, until, write

T = TypeVar("T")


async def test_a_result_has_the_type_of_its_workflow_where_that_is_known(
    client: Client, engine: PostgresJournal
) -> None:
    run = await client.start(order_flow, Order("o1"), id="r")
    waiting = asyncio.ensure_future(run.result())
    await complete(engine, "r")
    assert await soon(waiting) == Receipt("o1")
    assert await client.get_run("r", order_flow).result() == Receipt("o1")
    assert await client.get_run("r").result() == {"order_id": "o1"}


async def test_a_result_of_null_is_none(client: Client, engine: PostgresJournal) -> None:
    await client.start(audit_flow, id="r")
    await complete(engine, "r", b"null")
    assert await soon(client.get_run("r").result()) is None
    assert (await client.get_run("r").describe()).state == "completed"


async def test_a_result_that_does_not_fit_is_an_error_and_described_as_it_is(
    client: Client, engine: PostgresJournal
) -> None:
    run = await client.start(order_flow, Order("o1"), id="r")
    await complete(engine, "r", b'{"order":1}')
    with pytest.raises(DecodeError, match="result of workflow 'order_flow' at order_id"):
        await soon(run.result())
    assert (await run.describe()).result == {"order": 1}


async def test_a_failed_run_raises_what_was_recorded_with_its_causes(
    client: Client, engine: PostgresJournal
) -> None:
    run = await client.start(order_flow, Order("o1"), id="r")
    await fail(engine, "r")
    with pytest.raises(RunFailed, match="run 'r' failed: ValueError: no such order") as caught:
        await soon(run.result(timeout=timedelta(seconds=10)))
    error = caught.value
    assert (error.run_id, error.type, error.message, error.traceback) == (
        "r",
        "ValueError",
        "no such order",
        "Traceback …",
    )
    assert error.root_cause == Failure("OSError", "disk full")
    first = error.__cause__
    assert isinstance(first, RemoteError)
    assert (first.type, str(first.__cause__)) == ("ValueError", "OSError: disk full")
    found = await run.describe()
    assert (found.state, found.error) == ("failed", error.failure)
    assert str(found.error) == "ValueError: no such order"


async def test_a_failed_group_says_what_one_of_its_members_failed_with(
    client: Client, engine: PostgresJournal
) -> None:
    one = Failure("ActivityFailed", "activity 'charge' failed", cause=Failure("ValueError", "declined"))
    group = Failure("ExceptionGroup", "in a TaskGroup (1 sub-exception)", parts=(one,))
    run = await client.start(order_flow, Order("o1"), id="r")
    await write(engine, turn(await take(engine, "r"), status=Fail(encode_failure(group))))
    text = r"^run 'r' failed: ExceptionGroup: in a TaskGroup \(1 sub-exception\): ValueError: declined$"
    with pytest.raises(RunFailed, match=text):
        await run.result()


async def test_a_cancelled_run_raises_why_and_whoever_falls_with_it_says_so(
    client: Client, engine: PostgresJournal
) -> None:
    run = await client.start(order_flow, Order("o1"), id="r")
    await write(engine, turn(await take(engine, "r"), children=(child("r", "a"),)))
    waiting = asyncio.ensure_future(client.get_run("r/a").result())
    await run.cancel("sold out")
    with pytest.raises(RunCancelled, match=r"^run 'r' was cancelled: sold out$") as caught:
        await soon(run.result())
    assert (caught.value.run_id, caught.value.reason, caught.value.parent_cancelled) == ("r", "sold out", False)
    with pytest.raises(
        RunCancelled, match="'r/a' was cancelled: parent_cancelled: run 'r' was cancelled: sold"
    ) as fell:
        await soon(waiting)
    assert fell.value.parent_cancelled
    assert (await client.get_run("r/a").describe()).error == Failure(
        "parent_cancelled", "run 'r' was cancelled: sold out"
    )


async def test_a_timeout_says_what_the_run_waits_for(client: Client, engine: PostgresJournal) -> None:
    await engine.announce([Announcement("workflow", "audit_flow", 3)])
    run: RunHandle[Receipt] = await client.start(order_flow, Order("o1"), id="r")
    with pytest.raises(
        TimeoutError, match="pending, waiting for a worker with workflow 'order_flow' version 1; none"
    ):
        await run.result(timeout=0)
    await engine.announce([Announcement("workflow", "order_flow", 1)])
    with pytest.raises(TimeoutError, match=r"within 0.01 s: it is pending, waiting for a worker to take it up"):
        await run.result(timeout=timedelta(milliseconds=10))
    claimed = await take(engine, "r")
    with pytest.raises(TimeoutError, match=r"it is running by worker 'w'$"):
        await run.result(timeout=0)
    await write(engine, turn(claimed, status=Passivate(None, "signal 'approve'")))
    with pytest.raises(TimeoutError, match="it is suspended, waiting for signal 'approve'"):
        await run.result(timeout=0)


async def test_a_timeout_on_a_parked_run_names_the_divergence(client: Client, engine: PostgresJournal) -> None:
    run = await client.start(order_flow, Order("o1"), id="r")
    divergence = Failure("NonDeterminismError", "recorded: charge-1; decided: ship-1")
    await write(engine, turn(await take(engine, "r"), status=Park(encode_failure(divergence))))
    with pytest.raises(TimeoutError, match=r"parked, waiting for .* recorded: charge-1; decided: ship-1"):
        await run.result(timeout=0)
    found = await run.describe()
    assert (found.state, found.error) == ("parked", divergence)
    assert found.waiting_for is not None
    assert "NonDeterminismError" in found.waiting_for
    await run.resume()
    assert (await run.describe()).state == "suspended"
    await complete(engine, "r")
    assert await soon(run.result()) == Receipt("o1")


async def test_a_run_that_has_ended_gives_its_result_without_any_time_to_wait(
    client: Client, engine: PostgresJournal
) -> None:
    run = await client.start(order_flow, Order("o1"), id="r")
    await complete(engine, "r")
    assert await run.result(timeout=0) == Receipt("o1")


async def test_many_may_wait_for_one_run_and_some_may_stop(client: Client, engine: PostgresJournal) -> None:
    run = await client.start(order_flow, Order("o1"), id="r")
    waiting = [asyncio.ensure_future(run.result()) for _ in range(50)]
    await asyncio.sleep(0)
    for given_up in waiting[::2]:
        given_up.cancel()
    await complete(engine, "r")
    assert await soon(asyncio.gather(*waiting[1::2])) == [Receipt("o1")] * 25
    assert all(given_up.cancelled() for given_up in waiting[::2])


async def test_a_wait_outlives_every_connection(client: Client, engine: PostgresJournal, database: str) -> None:
    run = await client.start(order_flow, Order("o1"), id="r")
    waiting = asyncio.ensure_future(run.result())
    await until(lambda: awaitable(strike(database, "journal") and strike(database, "listen")))
    await complete_when_back(engine)
    assert await soon(waiting) == Receipt("o1")


async def complete_when_back(engine: PostgresJournal) -> None:
    """The engine's own connections were among those that were broken."""

    async def claimed() -> dict[str, Claimed]:
        with contextlib.suppress(DatabaseUnreachable):
            return await claim(engine, ("order_flow", 1))
        return {}

    run = (await until(claimed))["r"]
    await write(engine, turn(run, status=Complete(b'{"order_id":"o1"}')))


async def awaitable(value: T) -> T:
    return value


async def test_a_timeout_that_is_none_is_refused(client: Client) -> None:
    run = client.get_run("r")
    for bad in (-1, float("nan")):
        with pytest.raises(ValueError, match="timeout"):
            await run.result(timeout=bad)
    with pytest.raises(TypeError, match="timeout"):
        await run.result(timeout="3")  # type: ignore[arg-type]


async def test_a_large_result_arrives_whole(client: Client, engine: PostgresJournal) -> None:
    await client.start(audit_flow, id="r")
    text = "x" * 2_000_000
    await write(engine, turn(await take(engine, "r"), status=Complete(b'"%b"' % text.encode())))
    assert await soon(client.get_run("r").result()) == text
