"""An order, and a batch of them: an activity, a child for each order, and one audit before all.

The functions can be called plainly, without a database and without a worker; ``tests/test_examples.py`` does.
``batch_flow`` starts children, so it needs a run. There is no engine yet: the test drives it through the core.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from continuum import (
    ChildFailed,
    Retry,
    activity,
    await_child,
    child,
    log,
    start_child,
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


@dataclass(frozen=True)
class Batch:
    id: str
    orders: list[Order] = field(default_factory=list[Order])


@activity(retry=Retry(max_attempts=5, non_retryable=("CardDeclined",)), start_to_close=30)
async def charge(order_id: str, cents: int) -> str:
    """Take the money. It may run more than once for one order, so the provider is given the order's id."""
    if cents <= 0:
        raise ValueError(f"order {order_id} costs {cents}")
    return f"payment-{order_id}"


@activity
def count_open_disputes(batch_id: str) -> int:
    """Look into the ledger. A plain function is an activity too."""
    return len(batch_id) % 2


@workflow(version=1)
async def order_flow(order: Order) -> Receipt:
    """One input, one result, both typed."""
    return Receipt(order.id, await charge(order.id, order.cents))


@workflow(version=1)
async def audit_flow(batch_id: str) -> int:
    return await count_open_disputes(batch_id)


@workflow(version=1)
async def batch_flow(batch: Batch) -> list[Receipt]:
    """Audit first; then all orders at once, of which some may fail."""
    disputes = await child(audit_flow, batch.id)
    if disputes > 10:
        await asyncio.sleep(3600)  # durable: the worker may stop meanwhile
    refs = [start_child(order_flow, order, id=f"order-{order.id}") for order in batch.orders]
    receipts: list[Receipt] = []
    for ref in refs:
        try:
            receipts.append(await await_child(ref))
        except ChildFailed as failed:
            log.warning("%s failed: %s", ref.id, failed.root_cause)
    return receipts
