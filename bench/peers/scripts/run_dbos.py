"""DBOS Transact: a library, so this one process starts workflows, runs them and waits for them.

The rule: ``options`` change settings, ``how`` changes the call; both are DBOS's own words. A queue is polled, and
so is the result of what went through it. What is started without a queue runs here at once.
"""

from __future__ import annotations

import asyncio
import importlib.metadata
import json
import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any
from urllib.parse import urlencode

from dbos import DBOS
from psycopg.conninfo import conninfo_to_dict

from bench.peers.scripts.orders import STEPS, Answer, expect, in_flight, one_by_one, order_of, serve

WHERE, OPTIONS = conninfo_to_dict(sys.argv[1]), json.loads(sys.argv[2])
URL = f"postgresql:///{WHERE.pop('dbname')}?{urlencode(WHERE)}"  # SQLAlchemy takes nothing but this form
QUEUE = "asked"
POLL_S: float = OPTIONS.get("poll_s", 1.0)  # 1 is DBOS's default for queues and for results
DBOS(
    config={
        "name": "peers",
        "system_database_url": URL,
        "log_level": "ERROR",
        "application_version": "peers",
        **OPTIONS.get("config", {}),
    }
)


@DBOS.step()
def book(order: dict[str, Any]) -> str:
    """Do nothing with an order."""
    return str(order["order"])


@DBOS.step()
async def book_async(order: dict[str, Any]) -> str:
    """Do nothing with an order."""
    return str(order["order"])


@DBOS.workflow()
def ten_steps() -> int:
    """Run a step ten times."""
    return sum(len(book(order_of(number))) == 8 for number in range(STEPS))


@DBOS.workflow()
async def ten_steps_async() -> int:
    """Run a step ten times."""
    return sum([len(await book_async(order_of(number))) == 8 for number in range(STEPS)])


@DBOS.workflow()
def nothing(number: int) -> int:
    """End at once."""
    return number


@DBOS.workflow()
async def nothing_async(number: int) -> int:
    """End at once."""
    return number


@DBOS.workflow()
def parent(children: int, queued: bool) -> int:
    """Start children, and wait for all of them."""
    if queued:
        handles = [DBOS.enqueue_workflow(QUEUE, nothing, number) for number in range(children)]
    else:
        handles = [DBOS.start_workflow(nothing, number) for number in range(children)]
    return sum(handle.get_result(polling_interval_sec=POLL_S) is not None for handle in handles)


@DBOS.workflow()
async def parent_async(children: int) -> int:
    """Start children together, and wait for all of them."""
    starting = (DBOS.start_workflow_async(nothing_async, number) for number in range(children))
    handles = await asyncio.gather(*starting)
    results = await asyncio.gather(*(handle.get_result() for handle in handles))
    return len(results)


class Twin:
    """A second process of the application, told what to do as this one is. It ends with this one."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.pid = process.pid

    @classmethod
    async def started(cls) -> Twin:
        """Start one, and wait until it is ready."""
        assert __spec__ is not None
        options = OPTIONS | {"processes": 1, "config": {**OPTIONS.get("config", {}), "executor_id": "second"}}
        twin = cls(
            await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", __spec__.name, sys.argv[1], json.dumps(options)),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
            )
        )
        await twin._answer()
        return twin

    async def steps(self, workflows: int, at_once: int) -> Answer:
        """Have it run workflows of ten steps."""
        assert self._process.stdin is not None
        order = {"do": "steps", "workflows": workflows, "at_once": at_once}
        self._process.stdin.write(json.dumps(order).encode() + b"\n")
        return await self._answer()

    async def _answer(self) -> Answer:
        assert self._process.stdout is not None
        answer: Answer = json.loads(await self._process.stdout.readline())
        if "problem" in answer:
            raise RuntimeError(answer["problem"])
        return answer


async def steps(workflows: int, at_once: int, twin: Twin | None = None) -> Answer:
    """Run workflows of ten steps, as coroutines or each in a thread; with a twin half of them there."""
    if twin is not None:
        started = time.perf_counter()
        half = workflows // 2
        await asyncio.gather(steps(workflows - half, at_once - at_once // 2), twin.steps(half, at_once // 2))
        return {"seconds": time.perf_counter() - started}
    if OPTIONS.get("api") == "async":

        async def one(number: int) -> None:
            handle = await DBOS.start_workflow_async(ten_steps_async)
            expect(await handle.get_result(), STEPS)

        return await in_flight(workflows, at_once, one)

    def one_in_thread(number: int) -> None:
        expect(DBOS.start_workflow(ten_steps).get_result(), STEPS)

    def all_in_threads() -> float:
        started = time.perf_counter()
        with ThreadPoolExecutor(at_once) as threads:
            list(threads.map(one_in_thread, range(workflows)))
        return time.perf_counter() - started

    return {"seconds": await asyncio.to_thread(all_in_threads)}


async def children(children: int, how: str) -> Answer:
    """Run a parent with so many children: ``threads``, ``coroutines`` or through a ``queue``."""
    started = time.perf_counter()
    if how == "coroutines":
        found = await (await DBOS.start_workflow_async(parent_async, children)).get_result()
    else:
        handle = await asyncio.to_thread(DBOS.start_workflow, parent, children, how == "queue")
        found = await asyncio.to_thread(handle.get_result)
    expect(found, children)
    return {"seconds": time.perf_counter() - started}


async def latency(pauses_s: list[float], how: str) -> Answer:
    """Run workflows that do nothing, one after the other: ``same process``, or through a ``queue``."""

    def one(number: int) -> None:
        if how == "queue":
            found = DBOS.enqueue_workflow(QUEUE, nothing, number).get_result(polling_interval_sec=POLL_S)
        else:
            found = DBOS.start_workflow(nothing, number).get_result()
        expect(found, number)

    return await one_by_one(pauses_s, lambda number: asyncio.to_thread(one, number))


async def main() -> None:
    """Start the engine, and do as told."""
    await asyncio.to_thread(DBOS.launch)
    await asyncio.to_thread(
        lambda: DBOS.register_queue(QUEUE, polling_interval_sec=POLL_S, on_conflict="always_update")
    )
    twin = await Twin.started() if OPTIONS.get("processes", 1) > 1 else None
    workers = [os.getpid()] if twin is None else [os.getpid(), twin.pid]
    hello = {"version": importlib.metadata.version("dbos"), "workers": workers}
    await serve(hello, {"steps": partial(steps, twin=twin), "children": children, "latency": latency})


asyncio.run(main())
os._exit(0)  # an orderly end waits for threads that poll
