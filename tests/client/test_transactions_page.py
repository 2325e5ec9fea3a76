"""The blocks of docs/transactions.md do what the page says."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from continuum import Client, SyncClient
from tests.client.callers import async_engine, django, engine
from tests.journal.harness import select
from tests.test_docs import ROOT, run

CHANGES = """
select (select array_agg(run_id || ' ' || state) from continuum.runs),
  (select array_agg(run_id || ' ' || key) from continuum.inbox), (select array_agg(cents) from orders)"""


@pytest.fixture
def page(database: str, tmp_path: Path) -> ModuleType:
    """The page's functions, and the table that they use."""
    select(database, "create table orders (id text, cents int default 0)")
    return run(ROOT / "docs" / "transactions.md", tmp_path)


async def test_the_blocks_for_asyncio(page: ModuleType, client: Client, database: str) -> None:
    await page.buy(client, database, page.Order("7", 100))
    assert select(database, CHANGES) == [(["order-7 pending"], None, [0])]
    async with async_engine(database) as made, AsyncSession(made) as session:
        await page.pay(client, session, "7", 100)
    assert select(database, CHANGES) == [(["order-7 pending"], ["order-7 paid"], [100])]


def test_the_blocks_for_sync_code(page: ModuleType, sync: SyncClient, database: str) -> None:
    page.buy_sync(sync, database, page.Order("7", 100))
    with engine(database) as made, Session(made) as session:
        page.pay_sync(sync, session, "7", 100)
    assert select(database, CHANGES) == [(["order-7 pending"], ["order-7 paid"], [100])]
    with django(database):
        page.sold_out(sync, "7")
    assert select(database, CHANGES) == [(["order-7 cancelled"], None, None)]
