"""Workflows that the kit is tried on."""

from __future__ import annotations

import asyncio
import time
from datetime import timedelta

from continuum import (
    Retry,
    Update,
    activity,
    await_children,
    child,
    continue_as_new,
    now,
    on_update,
    start_child,
    wait_signal,
    workflow,
)


@activity(retry=Retry(max_attempts=5, initial=60, max_interval=3600))
async def send_mail(address: str, subject: str = "hello") -> str:
    raise RuntimeError("no test sends mail")


@activity(retry=Retry(max_attempts=3), start_to_close=timedelta(minutes=5))
async def slow_report(name: str) -> str:
    raise RuntimeError("no test makes reports")


@activity
def block(seconds: float) -> float:
    """What is not async runs in a thread."""
    time.sleep(seconds)
    return seconds


@activity
async def do_io(seconds: float) -> float:
    await asyncio.sleep(seconds)
    return seconds


@workflow
async def mail_flow(address: str) -> str:
    return await send_mail(address)


@workflow
async def report_flow(name: str) -> str:
    return await slow_report(name)


@workflow
async def year_flow(days: int) -> int:
    for _ in range(days):
        await asyncio.sleep(24 * 3600)
    return days


@workflow
async def io_and_sleep_flow(seconds: float) -> list[float]:
    """Real work beside a sleep that is due long after it."""

    async def sleep() -> float:
        await asyncio.sleep(3600)
        return now().timestamp()

    async with asyncio.TaskGroup() as tasks:
        working = tasks.create_task(do_io(seconds))
        blocking = tasks.create_task(block(seconds))
        sleeping = tasks.create_task(sleep())
    return [working.result(), blocking.result(), sleeping.result()]


price = Update("price", int, int)


@workflow(updates=[price])
async def price_flow(handled: bool) -> int:
    """Takes a minute to answer an update, and half an hour altogether; or never answers one."""
    prices: list[int] = []

    async def change(cents: int) -> int:
        await asyncio.sleep(60)
        prices.append(cents)
        return 2 * cents

    if handled:
        on_update(price, change)
        await asyncio.sleep(1800)
    else:
        await wait_signal("go", bool)
    return sum(prices)


@workflow(signals={"go": bool})
async def signal_flow() -> bool:
    return await wait_signal("go", bool)


@workflow
async def order_flow(number: int) -> int:
    await asyncio.sleep(60 * number)
    return number * number


@workflow
async def batch_flow(count: int) -> int:
    return sum(await await_children([start_child(order_flow, number) for number in range(count)]))


@workflow
async def parent_flow(number: int) -> int:
    return await child(order_flow, number) + 1


@workflow
async def waiting_parent_flow() -> bool:
    return await child(signal_flow, None, id="waits")


@workflow
async def generations_flow(left: int) -> int:
    await asyncio.sleep(10)
    if left:
        continue_as_new(left - 1)
    return left


@workflow
async def failing_flow(message: str) -> None:
    raise ValueError(message)
