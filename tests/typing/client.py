# pyright: reportUnnecessaryTypeIgnoreComment=true
"""The types of the client, from connect to result, async and sync. Read by mypy and pyright, never run."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, assert_type

import continuum
from continuum import (
    Client,
    Event,
    Failure,
    RunCancelled,
    RunDescription,
    RunFailed,
    RunHandle,
    SyncClient,
    SyncRunHandle,
    Update,
    connect,
    connect_sync,
    workflow,
)


@dataclass(frozen=True)
class Order:
    id: str


@dataclass(frozen=True)
class Receipt:
    order_id: str


@workflow
async def order_flow(order: Order) -> Receipt:
    return Receipt(order.id)


@workflow(version=2)
async def batch_flow(orders: list[Order]) -> list[Receipt]:
    return []


@workflow
async def audit_flow() -> int:
    return 0


async def a_handle_knows_what_its_run_returns(order: Order) -> None:
    async with connect() as client:
        assert_type(client, Client)
        run = await client.start(order_flow, order, id="order-7", namespace="shop", priority=3)
        assert_type(run, RunHandle[Receipt])
        assert_type(await run.result(timeout=30), Receipt)
        assert_type(await run.result(timedelta(seconds=3)), Receipt)
        assert_type(await (await client.start(batch_flow, [order])).result(), list[Receipt])
        assert_type(await (await client.start(audit_flow)).result(), int)
        assert_type(await client.start(audit_flow, id="audit"), RunHandle[int])
        assert_type(await client.start("order_flow", {"id": "o1"}), RunHandle[Any])
        assert_type(client.get_run("order-7", order_flow), RunHandle[Receipt])
        assert_type(client.get_run("order-7"), RunHandle[Any])


async def it_is_part_of_the_callers_transaction(client: Client, sync: SyncClient, order: Order) -> None:
    session = object()  # whatever it is: it is recognised when it is used
    run = await client.start(order_flow, order, connection=session)
    assert_type(run, RunHandle[Receipt])
    await run.signal("approve", True, connection=session)
    await client.cancel(run.id, connection=session)
    assert_type(sync.start(order_flow, order, id="order-7", connection=session), SyncRunHandle[Receipt])
    sync.signal("order-7", "approve", connection=session)
    sync.get_run("order-7").cancel("sold out", connection=session)


async def a_run_is_looked_at_and_told_things(client: Client, run: RunHandle[Receipt]) -> None:
    assert_type(run.id, str)
    found = await run.describe()
    assert_type(found, RunDescription)
    assert_type(found.error, Failure | None)
    assert_type(found.completed_at, datetime | None)
    assert_type(found.parent_run_id, str | None)
    assert_type(found.generation, int)
    assert_type(await run.history(), list[Event])
    assert_type(await run.history(generation=2), list[Event])
    (event,) = await run.history()
    assert_type(event.payload, dict[str, Any])
    assert_type(await client.list_runs(state="failed", before=found), list[RunDescription])
    assert_type(await client.list_children(run.id, after="x", limit=3), list[RunDescription])
    assert_type(await client.tree(run.id, levels=2), list[RunDescription])
    await run.signal("approve", {"by": "ann"})
    await run.cancel(reason="sold out")
    await run.resume()
    await client.signal(run.id, "approve")
    await client.cancel(run.id)
    try:
        await run.result()
    except RunFailed as error:
        assert_type(error.failure, Failure)
        assert_type(error.run_id, str)
    except RunCancelled as error:
        assert_type(error.reason, str)
        assert_type(error.parent_cancelled, bool)


def the_sync_client_has_the_same_types(order: Order) -> None:
    with connect_sync("postgresql:///shop", schema="other", migrate=False) as client:
        assert_type(client, SyncClient)
        run = client.start(order_flow, order, id="order-7")
        assert_type(run, SyncRunHandle[Receipt])
        assert_type(run.result(timeout=30), Receipt)
        assert_type(client.start(batch_flow, [order]).result(), list[Receipt])
        assert_type(client.start(audit_flow).result(), int)
        assert_type(client.start("order_flow", {"id": "o1"}), SyncRunHandle[Any])
        assert_type(client.get_run("order-7", order_flow).result(), Receipt)
        assert_type(run.describe(), RunDescription)
        assert_type(run.history(1), list[Event])
        assert_type(client.tree("order-7"), list[RunDescription])
        run.signal("approve", True)
        run.cancel()
        assert_type(run.prune_generations(keep=2), int)
        assert_type(client.prune(older_than=timedelta(days=30)), int)
        labelled = client.start(order_flow, order, attributes={"tenant": "t1"}, traceparent="00-…")
        assert_type(labelled, SyncRunHandle[Receipt])
        assert_type(run.describe().attributes, Mapping[str, Any])
        assert_type(run.describe().traceparent, str | None)


async def wrong_inputs_and_options_are_refused(client: Client, sync: SyncClient, order: Order) -> None:
    await client.start(order_flow, "o1")  # type: ignore[misc]
    await client.start(order_flow)  # type: ignore[arg-type]
    await client.start(audit_flow, order)  # type: ignore[misc]
    await client.start(order_flow, order, idd="x")  # type: ignore[call-overload]
    await client.start(order_flow.function, order)  # type: ignore[call-overload]
    await client.start(order_flow, order, attributes=["a"])  # type: ignore[call-overload]
    await client.start(order_flow, order, traceparent=1)  # type: ignore[call-overload]
    await client.prune(timedelta(days=30))  # type: ignore[call-arg]
    sync.start(order_flow, "o1")  # type: ignore[misc]
    sync.start(order_flow)  # type: ignore[arg-type]
    sync.start(order_flow, order, idd="x")  # type: ignore[call-overload]
    client.get_run("x", "order_flow")  # type: ignore[call-overload]
    connect(shcema="x")  # type: ignore[arg-type]
    connect_sync(shcema="x")  # type: ignore[arg-type]
    connect(home=3)  # type: ignore[arg-type]


connecting: Callable[..., object] = continuum.connect


set_address = Update("set_address", str, Receipt)


async def an_update_knows_what_it_takes_and_answers(client: Client, run: RunHandle[Receipt]) -> None:
    assert_type(set_address, Update[str, Receipt])
    assert_type(Update("a"), Update[Any, Any])
    assert_type(Update("a", str), Update[str, Any])
    assert_type(Update("a", str, None), Update[str, None])
    assert_type(await run.update(set_address, "here", id="u-1", timeout=3), Receipt)
    assert_type(await client.update("r", set_address, "here"), Receipt)
    assert_type(await run.update("set_address", {"any": "json"}), Any)
    await run.update(set_address, 3)  # type: ignore[misc]
    await run.signal("approve", True, delivery_id="d-1")
    assert_type((await run.describe()).published, Any)


def an_update_knows_it_in_sync_code_too(client: SyncClient, run: SyncRunHandle[Receipt]) -> None:
    assert_type(run.update(set_address, "here"), Receipt)
    assert_type(client.update("r", set_address, "here", timeout=3), Receipt)
    client.signal("r", "approve", True, delivery_id="d-1")
