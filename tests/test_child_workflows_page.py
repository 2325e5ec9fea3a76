"""What docs/child-workflows.md shows is what happens, in memory; the crash walk of the page is run, too."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from continuum import Definitions, RunCancelled
from continuum.testing import WorkflowEnvironment
from tests.test_docs import ROOT, run


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return run(ROOT / "docs" / "child-workflows.md", Path(tmp_path_factory.mktemp("child_workflows")))


@pytest.fixture
async def env(page: Any) -> AsyncIterator[WorkflowEnvironment]:
    async with WorkflowEnvironment(sources(page)) as opened:
        yield opened


def sources(page: Any) -> list[Any]:
    return [found for found in vars(page).values() if type(found).__name__ in ("Workflow", "Activity")]


async def ended(env: WorkflowEnvironment, flow: Any, *given: Any) -> Any:
    """Start a run, and return what it comes to."""
    return await (await env.start(flow, *given)).result()


def test_the_page_names_each_definition_once(page: Any) -> None:
    assert len(Definitions(sources(page)).workflows) > 15


async def test_a_batch_gives_its_receipts_in_order(page: Any, env: WorkflowEnvironment) -> None:
    orders = [page.Order(name) for name in "abc"]
    wanted = [f"payment for {name}" for name in "abc"]
    assert await ended(env, page.batch_flow, orders) == wanted
    assert await ended(env, page.cheapest, orders) in wanted
    assert await ended(env, page.all_of_them, [*orders, page.Order("x", -1)]) == [*wanted, "ActivityFailed"]
    assert await ended(env, page.two_steps_each, orders) == [f"{one}, 0 findings" for one in wanted]
    assert await ended(env, page.starts_twice, orders[0]) == "payment for a"


async def test_an_error_arrives_as_it_was(page: Any, env: WorkflowEnvironment) -> None:
    said = await ended(env, page.region_flow, [page.Order("x", -1)])
    assert said == "ActivityFailed because of ValueError: order x costs -1"


async def test_a_map_pages_its_items_in_and_a_quorum_is_one(page: Any, env: WorkflowEnvironment) -> None:
    assert await ended(env, page.settle_all) == (25, 0)
    good, bad = page.Order("g"), page.Order("b", -1)
    assert await ended(env, page.quorum, [good, bad, page.Order("h")]) == ["payment for g", "payment for h"]
    assert await ended(env, page.quorum, [bad, page.Order("c", -1), good]) in (
        ["only 0 of 3"],
        ["only 1 of 3"],
    )


async def test_a_child_is_given_attributes_and_tries_again(page: Any, env: WorkflowEnvironment) -> None:
    started = await env.start(page.tenant_flow, "acme", id="t")
    assert await started.result() == {"id": "t/who", "below": "t", "tenant": "acme"}
    said = await ended(env, page.patient_parent, page.Order("x", -1))
    assert said == "ValueError, after which nothing helps"
    failures = iter([ConnectionError("away"), ConnectionError("away"), None])

    async def flaky(order_id: str, cents: int) -> str:
        if (error := next(failures)) is not None:
            raise error
        return "paid"

    env.replace(page.charge, flaky)
    before = env.now
    assert await ended(env, page.patient_parent, page.Order("y")) == "paid"
    assert env.now - before >= timedelta(seconds=25)


async def test_parent_and_child_talk(page: Any, env: WorkflowEnvironment) -> None:
    assert await ended(env, page.supervising, page.Order("o")) == ["o", "done"]


async def test_a_polite_flow_cleans_up(page: Any, env: WorkflowEnvironment) -> None:
    given_back: list[str] = []

    async def note(payment: str) -> None:
        given_back.append(payment)

    env.replace(page.give_back, note)
    started = await env.start(page.polite_flow, page.Order("o"))
    await env.sleep(1)
    await started.cancel("not wanted any more", grace=timedelta(seconds=30))
    with pytest.raises(RunCancelled, match="not wanted any more"):
        await started.result()
    assert given_back == ["payment for o"]


async def test_what_closes_with_its_parent(page: Any, env: WorkflowEnvironment) -> None:
    started = await env.start(page.sells, page.Order("o"), id="s")
    assert await started.result() == "payment for o"
    watch = await env.client.get_run("s/watch").describe()
    assert watch.state == "cancelled"
    assert watch.error is not None
    assert watch.error.type == "parent_closed"


def test_the_crash_walk_of_the_page(page: Any) -> None:
    page.test_orders_survive_every_crash()
