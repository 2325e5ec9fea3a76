"""What docs/client.md shows is what happens."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from continuum import Client
from continuum._journal.commit import Passivate
from continuum._journal.journal import PostgresJournal
from tests.client.flows import complete, fail, take
from tests.journal.harness import claim, entry, soon, turn, until, write
from tests.test_docs import ROOT, run


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return run(ROOT / "docs" / "client.md", Path(tmp_path_factory.mktemp("client")))


RECEIPT = b'{"order_id":"7","payment":"paid"}'


async def test_buying_with_and_without_asyncio(
    page: Any, client: Client, engine: PostgresJournal, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CONTINUUM_DATABASE_URL", database)

    async def started() -> object:
        return await client.list_runs(state="pending")

    for number, buying in enumerate((page.buy, lambda order: asyncio.to_thread(page.buy_from_a_view, order))):
        bought = asyncio.ensure_future(buying(page.Order(str(number), 4200)))
        await until(started)
        await complete(engine, f"order-{number}", RECEIPT)
        assert await soon(bought) == page.Receipt("7", "paid")


async def test_an_order_is_started_once(page: Any, client: Client) -> None:
    first = await page.start_once(client, page.Order("7", 4200))
    assert (await page.start_once(client, page.Order("7", 4200))).id == first.id == "order-7"
    assert await page.start_once(client, page.Order("7", 1)) is None


async def test_waiting_tells_the_four_ends(page: Any, client: Client, engine: PostgresJournal) -> None:
    for number in range(3):
        await page.start_once(client, page.Order(str(number), 4200))
    await complete(engine, "order-0", RECEIPT)
    assert await page.wait_for(client, "0") == "paid"
    await engine.release(await engine.leases())
    await fail(engine, "order-1")
    assert await page.wait_for(client, "1") == "failed: ValueError, OSError: disk full"
    await page.sold_out(client, "2")
    assert await page.wait_for(client, "2") == "cancelled: sold out"


async def test_looking_and_approving(page: Any, client: Client, engine: PostgresJournal) -> None:
    await page.start_once(client, page.Order("7", 4_200_000))
    claimed = await take(engine, "order-7")
    await write(engine, turn(claimed, entries=(entry("charge-1"),), status=Passivate(None, "signal 'approve'")))
    assert await page.stuck_orders(client) == ["order-7 waits for signal 'approve'"]
    assert await page.story(client, "order-7") == ["22:13:20 activity_completed charge-1"]
    await page.approve(client, "7")
    assert (await until(lambda: claim(engine, ("order_flow", 1)))).keys() == {"order-7"}, "it is due again"
