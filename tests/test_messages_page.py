"""What docs/messages.md shows is what happens, with a worker."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

import continuum
from continuum import Client, Definitions, Worker
from continuum.testing import WorkflowEnvironment
from tests.test_docs import ROOT, run
from tests.until import soon


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return run(ROOT / "docs" / "messages.md", Path(tmp_path_factory.mktemp("messages")))


def flows(page: Any) -> list[Any]:
    found = Definitions([page.purchase, page.department, page.votes, page.delivery, page.job])
    return [*found.workflows.values(), page.tell_courier, page.work]


async def test_the_page(page: Any, database: str) -> None:
    async with continuum.connect(database, migrate=False) as client, Worker(client, flows(page)):
        await soon(_signals(page, client))
        await soon(_updates(page, client))
        await soon(_states(page, client))


async def test_a_workflow_of_the_page_waits_for_its_handlers_before_it_ends(page: Any) -> None:
    async with WorkflowEnvironment([page.cart, page.price]) as env:
        begun = asyncio.Event()

        async def slow_price(item: str) -> int:
            begun.set()
            await env.sleep(60)
            return len(item)

        env.replace(page.price, slow_price)
        run = await env.start(page.cart)
        answer = asyncio.create_task(run.update(page.add_item, "tea"))
        await begun.wait()
        await run.signal("checkout")
        assert (await run.result(), await answer) == (3, 3)
        assert env.now - env.started == timedelta(seconds=60)


async def _signals(page: Any, client: Client) -> None:
    run = await client.start(page.purchase, 5000, id="p")
    await page.approve(client, "p", "ann")
    assert await run.result() == "granted by ann"
    assert await (await client.start(page.department, 500)).result() == "granted by the rules"


async def _updates(page: Any, client: Client) -> None:
    polling = await client.start(page.votes, 2)
    assert await asyncio.gather(*(polling.update(page.vote, name) for name in ("ann", "bob"))) == [1, 2]
    assert await polling.result() == ["ann", "bob"]
    run = await client.start(page.delivery, page.Address("old"), id="d")
    for _ in range(2):
        assert await page.move(client, "d", "Lindenweg", "m-1") == "change 1"
    assert await page.move(client, "d", "", "m-2") == "refused: no such street"
    assert (await run.describe()).published == page.Address("Lindenweg")
    for _ in range(2):
        await client.signal("d", "delivered", delivery_id="e-1")
    assert await run.result() == 1
    assert await page.move(client, "d", "anything", "m-1") == "change 1"


async def _states(page: Any, client: Client) -> None:
    run = await client.start(page.job, 3, id="j")
    await run.result()
    assert await page.percent(client, "j") == 100
