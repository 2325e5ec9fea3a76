# pyright: reportUnnecessaryTypeIgnoreComment=true
"""The types of definitions and of their plain calls. Read by mypy and pyright, never run.

Each file of this folder says with ``assert_type`` what an author's editor must know, and with an ignore what
it must refuse. Both checkers report an ignore that is not needed, so a refusal that went missing fails.
"""

from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, assert_type

from continuum import (
    Activity,
    ActivityOptions,
    ChildOptions,
    Definitions,
    Retry,
    Workflow,
    activity,
    workflow,
)


@dataclass(frozen=True)
class Order:
    id: str
    cents: int


@dataclass(frozen=True)
class Receipt:
    order_id: str
    payment_id: str


# --- activities


@activity
async def charge(order_id: str, cents: int) -> str:
    return f"{order_id}-{cents}"


@activity(retry=Retry(max_attempts=5), start_to_close=timedelta(seconds=30), queue="payments", priority=3)
async def refund(order_id: str, *, reason: str = "none") -> int:
    return len(order_id + reason)


@activity
def render(receipt: Receipt) -> bytes:
    return receipt.order_id.encode()


@activity(name="render_twice", schedule_to_close=60.0)
def render_again(receipt: Receipt, copies: int = 2) -> list[bytes]:
    return [receipt.order_id.encode()] * copies


@activity()
async def audit(order_id: str) -> None: ...


def an_activity_keeps_its_parameters_and_its_result() -> None:
    charges: Callable[[str, int], Coroutine[Any, Any, str]] = charge
    renders: Callable[[Receipt], Coroutine[Any, Any, bytes]] = render
    audits: Activity[[str], None] = audit
    audits_by_number: Activity[[int], None] = audit  # type: ignore[assignment]
    del charges, renders, audits, audits_by_number


async def calling_an_activity_is_awaited_whether_it_is_async_or_not(receipt: Receipt) -> None:
    started: Coroutine[Any, Any, str] = charge("o1", 4200)
    assert_type(await started, str)
    assert_type(await charge(order_id="o1", cents=4200), str)
    assert_type(await refund("o1", reason="late"), int)
    assert_type(await refund("o1"), int)
    assert_type(await render(receipt), bytes)
    assert_type(await render_again(receipt), list[bytes])
    assert_type(await charge.with_options(retry=Retry(max_attempts=2), start_to_close=5)("o1", 4200), str)


async def an_activity_refuses_wrong_arguments() -> None:
    await charge("o1")  # type: ignore[call-arg]
    await charge("o1", "4200")  # type: ignore[arg-type]
    await charge("o1", 4200, currency="EUR")  # type: ignore[call-arg]
    await refund("o1", "late")  # type: ignore[call-arg]


def activities_refuse_unknown_options() -> None:
    activity(retries=3)  # type: ignore[call-overload]
    charge.with_options(retires=None)  # type: ignore[call-arg]
    charge.with_options(retry=3)  # type: ignore[arg-type]
    Retry(attempts=3)  # type: ignore[call-arg]


# --- workflows


@workflow
async def bare(order: Order) -> Receipt:
    return Receipt(order.id, await charge(order.id, order.cents))


@workflow(version=2, name="with_options", signals={"approve": bool})
async def with_options(order: Order) -> Receipt:
    return Receipt(order.id, "")


@workflow()
async def empty_brackets(order: Order) -> Receipt:
    return Receipt(order.id, "")


@workflow
async def without_input() -> list[int]:
    return []


@workflow(version=3)
async def without_input_or_result() -> None: ...


@workflow
async def with_optional_input(order: Order | None) -> str | None:
    return order.id if order else None


def a_workflow_keeps_its_input_and_its_result() -> None:
    assert_type(bare, Workflow[Order, Receipt])
    assert_type(with_options, Workflow[Order, Receipt])
    assert_type(empty_brackets, Workflow[Order, Receipt])
    assert_type(without_input, Workflow[None, list[int]])
    assert_type(without_input_or_result, Workflow[None, None])
    assert_type(with_optional_input, Workflow[Order | None, str | None])
    assert_type(bare.name, str)
    assert_type(bare.version, int)


async def a_plain_call_has_the_function_s_types(order: Order) -> None:
    assert_type(await bare(order), Receipt)
    assert_type(await without_input(), list[int])
    assert_type(await with_optional_input(None), str | None)
    await bare("o1")  # type: ignore[arg-type]
    await bare()  # type: ignore[call-arg]
    await without_input(order)  # type: ignore[call-overload]


def workflows_refuse_what_cannot_be_one() -> None:
    def plain(order: Order) -> Receipt:
        return Receipt(order.id, "")

    async def two_inputs(order: Order, receipt: Receipt) -> None: ...

    workflow(plain)  # type: ignore[arg-type]
    workflow(two_inputs)  # type: ignore[arg-type]
    workflow()(plain)  # type: ignore[arg-type]
    workflow(vresion=2)  # type: ignore[call-overload]
    workflow(version="2")  # type: ignore[call-overload]


def definitions_are_collected_from_modules_and_values() -> None:
    found = Definitions([bare, charge])
    assert_type(found.workflow("bare"), Workflow[Any, Any])
    assert_type(found.activities, dict[str, Activity[Any, Any]])
    Definitions([order_id])  # type: ignore[list-item]


order_id = "o1"


def options_are_plain_values() -> None:
    assert_type(Retry(max_attempts=3, initial=0.5, max_interval=timedelta(minutes=1)).max_attempts, int)
    assert_type(ActivityOptions(start_to_close=3).queue, str | None)
    assert_type(ChildOptions(timeout=3).priority, int | None)
    ChildOptions(on_parent_close="kill")  # type: ignore[arg-type]
