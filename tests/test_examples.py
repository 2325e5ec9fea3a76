"""The examples do what they say: called plainly where that is possible, else driven through the core."""

import asyncio

import pytest
from examples import order
from examples.order import Batch, Order, Receipt

from continuum import Definitions, Failure, WorkflowMisuse
from tests.core.harness import Run


def test_an_order_is_charged_by_a_plain_call() -> None:
    assert asyncio.run(order.order_flow(Order("o1", 4200))) == Receipt("o1", "payment-o1")
    with pytest.raises(ValueError, match="costs 0"):
        asyncio.run(order.order_flow(Order("o1", 0)))


def test_a_plain_activity_is_called_plainly() -> None:
    assert order.count_open_disputes("b7") == 0


def test_a_workflow_with_a_plain_activity_is_called_plainly() -> None:
    assert asyncio.run(order.audit_flow("b7")) == 0


def test_a_batch_called_plainly_says_that_it_needs_a_run() -> None:
    with pytest.raises(WorkflowMisuse, match="child"):
        asyncio.run(order.batch_flow(Batch("b7")))


def test_a_batch_gives_the_receipts_of_the_orders_that_went_through() -> None:
    run = Run(order.batch_flow, Batch("b7", [Order("o1", 1), Order("o2", 2)]), id="batch-7")
    run.child_completed("audit_flow-1", 0)
    assert [command.run_id for command in run.commands] == ["batch-7/order-o1", "batch-7/order-o2"]  # type: ignore[union-attr]
    run.child_failed("order-o1", Failure("CardDeclined", "no money"))
    run.child_completed("order-o2", {"order_id": "o2", "payment_id": "p2"})
    assert run.result == [{"order_id": "o2", "payment_id": "p2"}]
    run.check_every_turn()
    run.machine.discard()


def test_the_module_holds_its_definitions() -> None:
    found = Definitions([order])
    found.prepare()
    assert {name for name, _ in found.workflows} == {"order_flow", "audit_flow", "batch_flow"}
    assert set(found.activities) == {"charge", "count_open_disputes"}
