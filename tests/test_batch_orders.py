"""The seed's batch of orders: through the core, on a worker, and as the program it is."""

import asyncio
import os
import subprocess
import sys
from pathlib import Path

from examples import batch_orders
from examples.batch_orders import Batch, Receipt

from continuum import Worker, connect
from tests.core.harness import Run

PROGRAM = Path(batch_orders.__file__)
RECEIPTS = [Receipt("o1", "payment-o1"), Receipt("o2", "payment-o2")]


def test_an_order_is_charged_by_a_plain_call() -> None:
    assert asyncio.run(batch_orders.order_flow("o1")) == RECEIPTS[0]


def test_the_batch_waits_for_its_audit_and_then_starts_all_orders_at_once() -> None:
    run = Run(batch_orders.batch_flow, Batch("b7", ["o1", "o2"]), id="batch-b7")
    run.child_completed("audit_flow-1", 0)
    assert [command.run_id for command in run.commands] == ["batch-b7/order-o1", "batch-b7/order-o2"]  # type: ignore[union-attr]
    run.child_completed("order-o2", {"order_id": "o2", "payment_id": "payment-o2"})
    run.restart()
    run.child_completed("order-o1", {"order_id": "o1", "payment_id": "payment-o1"})
    assert [receipt["order_id"] for receipt in run.result] == ["o1", "o2"]
    run.check_every_turn()
    run.machine.discard()


async def test_the_batch_runs_durably(database: str) -> None:
    async with connect(database) as client, Worker(client, [batch_orders]):
        run = await client.start(batch_orders.batch_flow, Batch("b7", ["o1", "o2"]), id="batch-b7")
        assert await run.result(timeout=60) == RECEIPTS
        children = [child.id for child in await client.list_children(run.id)]
    assert children == ["batch-b7/audit_flow-1", "batch-b7/order-o1", "batch-b7/order-o2"]


def test_the_program_prints_the_receipts_and_again_when_it_is_run_again(database: str) -> None:
    environ = {**os.environ, "CONTINUUM_DATABASE_URL": database}
    wanted = "".join(f"o{number}: payment-o{number}\n" for number in range(1, 11))
    for _ in range(2):
        done = subprocess.run([sys.executable, PROGRAM], env=environ, capture_output=True, text=True, timeout=60)
        assert (done.stdout, done.returncode) == (wanted, 0), done.stderr
