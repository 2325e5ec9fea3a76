"""Signals and cancellations: what arrives, and what is refused before it is sent."""

from __future__ import annotations

import pytest

from continuum import Client, EncodeError, InvalidId, RunNotActive, RunNotFound
from continuum._journal.journal import PostgresJournal
from tests.client.flows import Approval, Order, complete, fail, order_flow, take
from tests.journal.harness import child, select, turn, write

MAIL = "select run_id, type, key, payload::text from continuum.inbox order by id"


async def test_a_signal_lies_in_the_inbox_as_an_entry_would(client: Client, database: str) -> None:
    run = await client.start(order_flow, Order("o1"), id="r")
    await run.signal("approve", Approval("ann"))
    await run.signal("note", ["free", {"form": None}])
    await client.signal("r", "ping")
    assert select(database, MAIL) == [
        ("r", "signal_received", "approve", '{"payload":{"by":"ann"}}'),
        ("r", "signal_received", "note", '{"payload":["free",{"form":null}]}'),
        ("r", "signal_received", "ping", '{"payload":null}'),
    ]


async def test_a_signal_that_does_not_fit_is_refused_and_not_sent(client: Client, database: str) -> None:
    run = await client.start(order_flow, Order("o1"), id="r")
    with pytest.raises(EncodeError, match="signal 'approve' of workflow 'order_flow'"):
        await run.signal("approve", {"by": 3})
    with pytest.raises(EncodeError):
        await client.signal("r", "note", "nul\0")
    for bad in ("", "x" * 201, "\ud800"):
        with pytest.raises(InvalidId, match="signal's name"):
            await run.signal(bad)
    with pytest.raises(TypeError):
        await run.signal(3)  # type: ignore[arg-type]
    assert select(database, MAIL) == []


async def test_a_run_that_has_ended_takes_no_signal(client: Client, engine: PostgresJournal) -> None:
    for run_id, end in (("c", complete), ("f", fail)):
        run = await client.start(order_flow, Order("o1"), id=run_id)
        await end(engine, run_id)
        with pytest.raises(RunNotActive) as caught:
            await run.signal("go")
        assert caught.value.state in ("completed", "failed")
        assert caught.value.run_id == run_id


async def test_a_child_is_reached_by_its_id(client: Client, engine: PostgresJournal, database: str) -> None:
    await client.start(order_flow, Order("o1"), id="r")
    await write(engine, turn(await take(engine, "r"), children=(child("r", "a"),)))
    await client.signal("r/a", "go", 1)
    assert select(database, MAIL) == [("r/a", "signal_received", "go", '{"payload":1}')]
    await client.cancel("r/a", "not needed")
    assert (await client.get_run("r/a").describe()).state == "cancelled"
    assert (await client.get_run("r").describe()).state == "running"


async def test_cancelling_twice_is_cancelling_once(client: Client) -> None:
    run = await client.start(order_flow, Order("o1"), id="r")
    assert await run.cancel(reason="sold out") is None  # type: ignore[func-returns-value]
    assert await run.cancel(reason="again") is None  # type: ignore[func-returns-value]
    found = await run.describe()
    assert (found.state, str(found.error)) == ("cancelled", "cancelled: sold out")


async def test_a_run_that_completed_or_failed_cannot_be_cancelled(client: Client, engine: PostgresJournal) -> None:
    for run_id, end, state in (("c", complete, "completed"), ("f", fail, "failed")):
        run = await client.start(order_flow, Order("o1"), id=run_id)
        await end(engine, run_id)
        with pytest.raises(RunNotActive, match=f"'{run_id}' is {state}; nothing was changed") as caught:
            await run.cancel()
        assert caught.value.state == state
        with pytest.raises(RunNotActive):
            await run.resume()


async def test_resuming_a_run_that_is_not_parked_changes_nothing(client: Client) -> None:
    run = await client.start(order_flow, Order("o1"), id="r")
    before = await run.describe()
    await run.resume()
    assert await run.describe() == before
    with pytest.raises(RunNotFound):
        await client.get_run("missing").resume()


async def test_a_reason_that_cannot_be_stored_is_refused(client: Client) -> None:
    run = await client.start(order_flow, Order("o1"), id="r")
    for bad in ("", "nul\0", "x" * 1001):
        with pytest.raises(InvalidId, match="reason"):
            await run.cancel(bad)
    assert (await run.describe()).state == "pending"
