"""What docs/long-running-workflows.md shows is what happens, in memory."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from continuum.testing import WorkflowEnvironment
from tests.test_child_workflows_page import ended, sources
from tests.test_docs import ROOT, run


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return run(ROOT / "docs" / "long-running-workflows.md", Path(tmp_path_factory.mktemp("long_running")))


@pytest.fixture
async def env(page: Any) -> AsyncIterator[WorkflowEnvironment]:
    async with WorkflowEnvironment(sources(page)) as opened:
        yield opened


async def test_a_chain_gives_its_last_result_and_is_tidied(page: Any, env: WorkflowEnvironment) -> None:
    started = await env.start(page.yearly, id="y")
    assert await started.result() == 72 * 7
    meter = env.client.get_run("y/meter")
    assert {event.generation for event in await meter.history()} == {1, 2, 3}
    assert await page.tidy(env.client, "y/meter") > 0
    assert {event.generation for event in await meter.history()} == {3}


async def test_a_ref_goes_with_the_run(page: Any, env: WorkflowEnvironment) -> None:
    assert await ended(env, page.convoy_flow, page.Convoy()) == "truck 3"


async def test_an_account_lives_by_its_signals(page: Any, env: WorkflowEnvironment) -> None:
    started = await env.start(page.account_flow, page.Account())
    for cents in (5, 7):
        await started.signal("deposit", cents)
        await env.sleep(20 * 3600)
    assert (await started.describe()).generation == 2
    await started.signal("close", None)
    assert await started.result() == 12


async def test_a_page_for_each_generation(page: Any, env: WorkflowEnvironment) -> None:
    started = await env.start(page.through_everything, page.Cursor())
    assert await started.result() == 50
    described = await started.describe()
    assert described.generation == 4
    assert described.published == {"done": 50}


async def test_the_test_of_the_page(page: Any) -> None:
    await page.test_three_days_of_readings()
