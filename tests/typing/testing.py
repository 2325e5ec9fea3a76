# pyright: reportUnnecessaryTypeIgnoreComment=true
"""The types of the testing kit: replacements fit what they replace. Read by mypy and pyright, never run."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import assert_type

from continuum import Client, Event, RunHandle, SyncRunHandle, activity, workflow
from continuum.testing import (
    Call,
    History,
    SyncWorkflowEnvironment,
    WorkflowEnvironment,
    assert_history,
    assert_replays,
    load_history,
    read_history,
    save_history,
)


@dataclass(frozen=True)
class Order:
    id: str


@activity
async def charge(order_id: str, cents: int) -> str:
    return order_id


@activity
def count(order_id: str) -> int:
    return len(order_id)


@workflow
async def order_flow(order: Order) -> str:
    return await charge(order.id, await count(order.id))


@workflow
async def nightly_flow() -> int:
    return 1


async def use(env: WorkflowEnvironment, path: Path) -> None:
    run = await env.start(order_flow, Order("o1"), id="o1")
    assert_type(run, RunHandle[str])
    assert_type(await env.start(nightly_flow), RunHandle[int])
    assert_type(env.client, Client)
    assert_type(env.now - env.started, timedelta)
    assert_type(await env.until_waiting(run), str)

    async def pay(order_id: str, cents: int) -> str:
        return order_id

    env.replace(charge, pay)
    env.replace(charge, lambda order_id, cents: "paid")
    env.replace(count, lambda order_id: 3)
    env.replace(order_flow, lambda order: order.id)
    env.replace(nightly_flow, lambda: 5)
    assert_type(env.calls(charge), list[Call[str]])
    assert_type(env.calls(order_flow), list[Call[str]])
    assert_type(env.calls(count)[0].result, int | None)

    env.at(timedelta(days=2), lambda: run.signal("approve", True))
    env.at(datetime(2030, 1, 1), lambda: None)
    env.after(5, lambda: run.cancel())
    await env.sleep(timedelta(days=1))
    await env.restart([order_flow])

    events: list[Event] = await run.history()
    assert_history(events, [("activity_completed", "charge-1"), ("signal_received", "go", {"payload": 1})])
    assert_type(await save_history(run, path), History)
    assert_type(await read_history(run), History)
    assert_replays(order_flow, load_history(path))
    assert_replays(order_flow, str(path))


def use_plainly(env: SyncWorkflowEnvironment) -> None:
    run = env.start(order_flow, Order("o1"))
    assert_type(run, SyncRunHandle[str])
    assert_type(run.result(), str)
    assert_type(env.get_run("o1", nightly_flow), SyncRunHandle[int])
    env.replace(count, lambda order_id: 3)


async def misuse(env: WorkflowEnvironment) -> None:
    await env.start(order_flow, "o1")  # type: ignore[misc]
    env.replace(count, lambda order_id: "three")  # type: ignore[arg-type, return-value]
    env.at(5, lambda: None)  # type: ignore[arg-type]
    env.calls(print)  # type: ignore[call-overload]
