"""Signals and cancellations: what arrives, and what is refused before it is sent."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable

import pytest

from continuum import (
    Client,
    EncodeError,
    InvalidId,
    MessageIdTaken,
    RunNotActive,
    RunNotFound,
    UnknownMessage,
    Update,
)
from continuum._core.effects import Answer
from continuum._journal.journal import PostgresJournal
from tests.client.flows import Approval, Order, Receipt, audit_flow, complete, fail, order_flow, pay, take
from tests.journal.harness import child, select, turn, write
from tests.until import soon, until

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


async def test_a_name_that_the_workflow_does_not_declare_is_refused_where_the_workflow_is_known(
    client: Client, database: str
) -> None:
    run = await client.start(order_flow, Order("o1"), id="r")
    with pytest.raises(UnknownMessage, match="'aprove'; did you mean 'approve'") as caught:
        await run.signal("aprove", Approval("ann"))
    assert (caught.value.workflow, caught.value.name) == ("order_flow", "aprove")
    with pytest.raises(UnknownMessage, match="there are: approve, go, note"):
        await client.get_run("r", order_flow).signal("xyz")
    undeclared = await client.start(audit_flow, id="a")
    await undeclared.signal("anything")
    assert [row[0] for row in select(database, MAIL)] == ["a"]


async def test_a_delivery_id_makes_a_signal_idempotent(client: Client, database: str) -> None:
    run = await client.start(order_flow, Order("o1"), id="r")
    await run.signal("approve", Approval("ann"), delivery_id="d-1")
    await run.signal("approve", Approval("bob"), delivery_id="d-1")
    with pytest.raises(MessageIdTaken, match="id 'd-1' of run 'r' is that of signal 'approve'"):
        await client.signal("r", "note", 1, delivery_id="d-1")
    await client.signal("r", "note", 2, delivery_id="d-2")
    assert select(database, MAIL) == [
        ("r", "signal_received", "approve", '{"delivery_id":"d-1","payload":{"by":"ann"}}'),
        ("r", "signal_received", "note", '{"delivery_id":"d-2","payload":2}'),
    ]


@pytest.mark.parametrize("bad", ["", "x" * 501, "nul\0", "\ud800"])
async def test_a_delivery_id_that_cannot_be_stored_is_refused(client: Client, database: str, bad: str) -> None:
    run = await client.start(order_flow, Order("o1"), id="r")
    with pytest.raises(InvalidId, match="delivery id"):
        await run.signal("go", delivery_id=bad)
    assert select(database, MAIL) == []


async def test_the_longest_ids_fit_together(client: Client, database: str) -> None:
    run = await client.start(order_flow, Order("o1"), id="r" * 900)
    await run.signal("go", delivery_id="\U0001f600" * 125)
    assert len(select(database, MAIL)) == 1


async def test_a_run_that_has_ended_takes_no_signal(client: Client, engine: PostgresJournal) -> None:
    for run_id, end in (("c", complete), ("f", fail)):
        run = await client.start(order_flow, Order("o1"), id=run_id)
        await end(engine, run_id)
        with pytest.raises(RunNotActive) as caught:
            await run.signal("go")
        assert caught.value.state in ("completed", "failed")
        assert caught.value.run_id == run_id


async def test_an_update_lies_in_the_inbox_as_an_entry_would(client: Client, database: str) -> None:
    run = await client.start(order_flow, Order("o1"), id="r")
    with pytest.raises(
        TimeoutError,
        match=r"has not answered update 'pay' within 0 s: it is pending, .*worker.*; ask again under id='u'",
    ):
        await run.update(pay, Approval("ann"), id="u", timeout=0)
    asked = [client.update("r", "pay", {"by": "bob"}, id="u", timeout=0.5) for _ in range(2)]
    assert all(isinstance(found, TimeoutError) for found in await asyncio.gather(*asked, return_exceptions=True))
    mail = [row for row in select(database, MAIL) if row[1] == "update_requested"]
    assert [row[2] for row in mail] == ["pay"]
    assert mail[0][3] in ('{"id":"u","input":{"by":"ann"}}', '{"id":"u","input":{"by":"bob"}}')


async def test_an_update_is_refused_before_it_is_sent(client: Client, database: str) -> None:
    run = await client.start(order_flow, Order("o1"), id="r")
    with pytest.raises(EncodeError, match="input of update 'pay'"):
        await run.update(pay, {"by": 3})  # type: ignore[arg-type]
    with pytest.raises(UnknownMessage, match="'pays'; did you mean 'pay'"):
        await run.update("pays")
    with pytest.raises(UnknownMessage):
        await run.update(Update("other"), 1)
    for bad in ("", "x" * 501, "nul\0"):
        with pytest.raises(InvalidId, match=r"^(an )?update's id"):
            await run.update(pay, Approval("ann"), id=bad)
    for limit, problem in ((float("nan"), "finite"), (float("inf"), "finite"), (-1, "negative")):
        with pytest.raises(ValueError, match=f"timeout must (be|not be) {problem}"):
            await run.update(pay, Approval("ann"), timeout=limit)
    with pytest.raises(TypeError, match="an Update or its name"):
        await run.update(3)  # type: ignore[call-overload]
    with pytest.raises(RunNotFound):
        await client.update("missing", "pay")
    assert select(database, MAIL) == []


async def test_an_answer_is_decoded_as_the_update_says(client: Client, engine: PostgresJournal) -> None:
    run = await client.start(order_flow, Order("o1"), id="r")
    asked = asyncio.ensure_future(run.update(pay, Approval("ann"), id="u"))
    by_name = asyncio.ensure_future(client.update("r", "pay", {"by": "ann"}, id="u"))
    claimed = await take(engine, "r")
    await until(lambda: _some(engine.mail(["r"])))
    await write(engine, turn(claimed, answers=(Answer("u", b'{"result":{"order_id":"o1"}}'),)))
    assert await soon(asked) == Receipt("o1")
    assert await soon(by_name) == {"order_id": "o1"}


async def _some(mail: Awaitable[object]) -> bool:
    return bool(await mail)


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
    for bad in ("", " ", "nul\0", "x" * 1001):
        with pytest.raises(InvalidId, match="reason"):
            await run.cancel(bad)
    assert (await run.describe()).state == "pending"
