"""A batch of orders: an audit first, then a child workflow for each order, all at the same time.

    python examples/batch_orders.py

runs it on the Postgres of CONTINUUM_DATABASE_URL, else on a private one in ``./.continuum``. Kill it on the way
and run it again: it goes on with what is missing.
"""

import asyncio
from dataclasses import dataclass

from continuum import Retry, Worker, activity, await_child, child, connect, start_child, workflow


@dataclass(frozen=True)
class Batch:
    id: str
    order_ids: list[str]


@dataclass(frozen=True)
class Receipt:
    order_id: str
    payment_id: str


@activity
def reconcile(batch_id: str) -> int:
    """Count the accounts that do not balance. A plain function runs in a thread."""
    return 0


@activity(retry=Retry(max_attempts=5))
async def charge(order_id: str) -> str:
    """Take the money. It may run again after a crash, so the provider is given the order's id."""
    return f"payment-{order_id}"


@workflow(version=1)
async def audit_flow(batch_id: str) -> int:
    return await reconcile(batch_id)


@workflow(version=1)
async def order_flow(order_id: str) -> Receipt:
    return Receipt(order_id, await charge(order_id))


@workflow(version=1)
async def batch_flow(batch: Batch) -> list[Receipt]:
    await child(audit_flow, batch.id)  # start a child, wait, get its result
    refs = [start_child(order_flow, order_id, id=f"order-{order_id}") for order_id in batch.order_ids]  # fan out
    return [await await_child(ref) for ref in refs]  # fan in


async def main() -> None:
    batch = Batch("b7", [f"o{number}" for number in range(1, 11)])
    definitions = batch_flow, audit_flow, order_flow, reconcile, charge
    async with connect() as client, Worker(client, definitions):
        run = await client.start(batch_flow, batch, id=f"batch-{batch.id}")
        for receipt in await run.result(timeout=60):
            print(f"{receipt.order_id}: {receipt.payment_id}")


if __name__ == "__main__":
    asyncio.run(main())
