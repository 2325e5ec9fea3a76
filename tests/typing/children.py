# pyright: reportUnnecessaryTypeIgnoreComment=true
"""The types of children, from start to outcome. Read by mypy and pyright, never run."""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from dataclasses import dataclass
from typing import Any, assert_never, assert_type

from continuum import (
    Cancelled,
    ChildCancelled,
    ChildFailed,
    ChildRef,
    Completed,
    Failed,
    MapFailed,
    MapResult,
    as_completed,
    await_child,
    await_children,
    child,
    map_children,
    start_child,
    workflow,
)


@dataclass(frozen=True)
class Order:
    id: str


@dataclass(frozen=True)
class Receipt:
    order_id: str


@dataclass(frozen=True)
class Progress:
    """Refs are part of an input like any value."""

    open: list[ChildRef[Receipt]]
    audit: ChildRef[int] | None = None


@workflow
async def order_flow(order: Order) -> Receipt:
    return Receipt(order.id)


@workflow
async def audit_flow() -> int:
    return 0


@workflow
async def resume(progress: Progress) -> list[Receipt]:
    assert_type(progress.open[0], ChildRef[Receipt])
    return await await_children(progress.open)


async def a_child_gives_its_result(order: Order) -> None:
    started: Coroutine[Any, Any, Receipt] = child(order_flow, order)
    assert_type(await started, Receipt)
    assert_type(await child(order_flow, order, id="first", timeout=60), Receipt)
    assert_type(await child(audit_flow), int)
    assert_type(await child(audit_flow, id="audit", on_parent_close="cancel"), int)


async def a_ref_is_awaited_in_three_ways(order: Order) -> None:
    ref = start_child(order_flow, order, id=f"order-{order.id}", attributes={"shop": "north"}, priority=1)
    assert_type(ref, ChildRef[Receipt])
    assert_type(start_child(audit_flow), ChildRef[int])
    assert_type(await ref, Receipt)
    assert_type(await await_child(ref), Receipt)
    assert_type(ref.id, str)
    assert_type(ref.done(), bool)
    ref.signal("approve", True)
    ref.cancel(reason="not needed any more")
    ref.cancel()


async def refs_go_through_asyncio(orders: list[Order]) -> None:
    refs = [start_child(order_flow, order) for order in orders]
    assert_type(await asyncio.gather(*refs), list[Receipt])
    assert_type(await asyncio.gather(refs[0], start_child(audit_flow)), tuple[Receipt, int])
    assert_type(await asyncio.gather(child(order_flow, orders[0]), child(audit_flow)), tuple[Receipt, int])
    assert_type(await asyncio.gather(*refs, return_exceptions=True), list[Receipt | BaseException])
    assert_type(await asyncio.wait_for(refs[0], 10), Receipt)
    async with asyncio.TaskGroup() as group:
        task = group.create_task(child(order_flow, orders[0]))
        waiting = group.create_task(await_child(refs[0]))
    assert_type(task.result(), Receipt)
    assert_type(waiting.result(), Receipt)


async def many_are_awaited_at_once(orders: list[Order]) -> None:
    refs = [start_child(order_flow, order) for order in orders]
    assert_type(await await_children(refs), list[Receipt])
    assert_type(await await_children(refs, return_exceptions=False), list[Receipt])
    assert_type(await await_children(refs, return_exceptions=True), list[Receipt | ChildFailed | ChildCancelled])
    assert_type(await await_children(ref for ref in refs), list[Receipt])
    assert_type(as_completed(refs), AsyncIterator[ChildRef[Receipt]])
    async for ref in as_completed(refs):
        assert_type(ref, ChildRef[Receipt])
        assert_type(await ref, Receipt)


async def an_outcome_is_one_of_three(order: Order) -> str:
    outcome = await start_child(order_flow, order).outcome()
    assert_type(outcome, Completed[Receipt] | Failed | Cancelled)
    match outcome:
        case Completed(value):
            assert_type(value, Receipt)
            return value.order_id
        case Failed(error):
            assert_type(error, ChildFailed)
            return error.type
        case Cancelled(reason):
            assert_type(reason, str)
            return reason
        case _:
            assert_never(outcome)


async def errors_say_what_they_hold(order: Order) -> None:
    try:
        await child(order_flow, order)
    except ChildFailed as error:
        assert_type(error.child_run_id, str)
        assert_type(error.workflow, str)
        assert_type(error.root_cause.message, str)
    except ChildCancelled as error:
        assert_type(error.reason, str)


async def wrong_inputs_and_options_are_refused(order: Order) -> None:
    start_child(order_flow, "o1")  # type: ignore[misc]
    start_child(order_flow)  # type: ignore[arg-type]
    start_child(audit_flow, order)  # type: ignore[misc]
    start_child(order_flow, order, timeot=3)  # type: ignore[call-overload]
    start_child(order_flow, order, on_parent_close="kill")  # type: ignore[call-overload]
    start_child(order_flow, order, "order-1")  # type: ignore[call-overload]
    await child(order_flow, "o1")  # type: ignore[misc]
    await child(order_flow, order, retry=3)  # type: ignore[call-overload]
    await child(order_flow.function, order)  # type: ignore[call-overload]
    await await_child(order)  # type: ignore[arg-type]
    await await_children([order])  # type: ignore[arg-type]


async def a_map_has_its_childrens_results(orders: list[Order], paged: AsyncIterator[Order]) -> None:
    done = await map_children(order_flow, orders, id=lambda order: order.id, concurrency=10, timeout=60)
    assert_type(done, MapResult[Receipt])
    assert_type(done.results, list[Receipt])
    assert_type(done.outcomes, list[Completed[Receipt] | Failed | Cancelled | None])
    assert_type(done.decided_by, tuple[ChildRef[Receipt], ...])
    assert_type(await map_children(order_flow, paged, collect=False, rest="abandon"), MapResult[Receipt])
    audits = map_children(audit_flow, [None, None])
    assert_type(await asyncio.gather(audits, child(audit_flow)), tuple[MapResult[int], int])
    try:
        await map_children(order_flow, (order for order in orders), min_successful=2, tolerate_failures=None)
    except MapFailed as error:
        assert_type(error.result.completed, Any)
    await map_children(order_flow, ["o1"])  # type: ignore[misc]
    await map_children(order_flow, orders, rest="kill")  # type: ignore[arg-type]
    await map_children(order_flow, orders, id=lambda order: order.number)  # type: ignore[attr-defined]
    await map_children(order_flow, orders, timeot=3)  # type: ignore[call-arg]
