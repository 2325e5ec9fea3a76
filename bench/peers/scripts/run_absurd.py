"""Absurd: workers are processes that poll queues; this one spawns tasks and looks for their results.

The rule: workers are this file again, with a queue to poll as third argument. Absurd refuses to wait for a task of
the same queue, so children lie in a second one. When all of many tasks have ended is asked of the tables, twenty
milliseconds apart: Absurd's own waiting polls each task, up to a second apart.
"""

from __future__ import annotations

import asyncio
import importlib.metadata
import json
import subprocess
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import absurdctl
import psycopg
from absurd_sdk import Absurd, AsyncAbsurd

from bench.peers.scripts.orders import STEPS, Answer, expect, in_flight, one_by_one, order_of, serve

URL, OPTIONS = sys.argv[1], json.loads(sys.argv[2])
MAIN, BELOW = "asked", "below"
LEASE_S = 600  # a step that spawns many children must not lose its task
LOOK_S = 0.02
SOONEST_S = 0.002
TASKS_PER_STEP = 250
ENDED = ("completed", "failed", "cancelled")


def register(app: Absurd, queue: str) -> None:
    """Register the tasks for a worker of threads."""

    def ten_steps(params: Any, task: Any) -> int:
        return sum(
            len(task.step(f"book-{number}", lambda number=number: str(order_of(number)["order"]))) == 8
            for number in range(STEPS)
        )

    def nothing(params: Any, task: Any) -> Any:
        return params["number"]

    def parent(params: Any, task: Any) -> int:
        return _parent(params, task)

    for flow in (ten_steps, nothing, parent):
        app.register_task(flow.__name__, queue=queue)(flow)


def register_async(app: AsyncAbsurd, queue: str) -> None:
    """Register the tasks for a worker of coroutines."""

    async def ten_steps(params: Any, task: Any) -> int:
        async def book(number: int) -> str:
            return str(order_of(number)["order"])

        found = [await task.step(f"book-{number}", lambda number=number: book(number)) for number in range(STEPS)]
        return sum(len(order) == 8 for order in found)

    async def nothing(params: Any, task: Any) -> Any:
        return params["number"]

    for flow in (ten_steps, nothing):
        app.register_task(flow.__name__, queue=queue)(flow)


def _parent(params: Any, task: Any) -> int:
    """Spawn children, many in a step, and wait for the result of each."""
    total: int = params["children"]
    with_spawner = Absurd(URL, queue_name=BELOW)
    ids: list[str] = []
    for first in range(0, total, TASKS_PER_STEP):

        def spawn(first: int = first) -> list[str]:
            found = []
            for number in range(first, min(first + TASKS_PER_STEP, total)):
                given = {"number": number}
                key = f"{task.task_id}-{number}"
                found.append(
                    str(with_spawner.spawn("nothing", given, queue=BELOW, idempotency_key=key)["task_id"])
                )
            return found

        ids += task.step(f"spawn-{first}", spawn)
    with_spawner.close()
    ended = [
        task.await_task_result(task_id, queue_name=BELOW, step_name=f"ended-{number}")
        for number, task_id in enumerate(ids)
    ]
    return sum(snapshot.state == "completed" for snapshot in ended)


def work(queue: str, api: str, concurrency: int) -> None:
    """Be a worker."""
    settings = {"claim_timeout": LEASE_S, "concurrency": concurrency, "poll_interval": OPTIONS.get("poll_s", 0.25)}
    if api == "async":

        async def run() -> None:
            app = AsyncAbsurd(URL, queue_name=queue)
            register_async(app, queue)
            await app.start_worker(**settings)

        asyncio.run(run())
    else:
        app = Absurd(URL, queue_name=queue)
        register(app, queue)
        app.start_worker(**settings)


class Orders:
    """What can be asked of the engine."""

    def __init__(self, own: psycopg.AsyncConnection[Any]) -> None:
        self._own = own
        self._apps = {queue: AsyncAbsurd(URL, queue_name=queue) for queue in (MAIN, BELOW)}

    async def steps(self, workflows: int, at_once: int) -> Answer:
        """Run workflows of ten steps: all are spawned, and the workers take as many as they are told to."""
        started = time.perf_counter()
        await in_flight(workflows, 1, self._spawn_steps)
        while await self._left(BELOW):  # noqa: ASYNC110 - nobody here is told of it
            await asyncio.sleep(LOOK_S)
        seconds = time.perf_counter() - started
        expect(await self._count("select count(*) from absurd.t_below where state <> 'completed'"), 0)
        return {"seconds": seconds}

    async def children(self, children: int, how: str) -> Answer:
        """Run a parent with so many children, and wait until it has ended."""
        started = time.perf_counter()
        spawned = await self._apps[MAIN].spawn("parent", {"children": children}, queue=MAIN)
        found = await self._ended(MAIN, str(spawned["task_id"]), LOOK_S)
        expect(found.result, children)
        return {"seconds": time.perf_counter() - started}

    async def latency(self, pauses_s: list[float], how: str) -> Answer:
        """Run tasks that do nothing: waited for as its SDK does, which looks 50 ms apart at first, or by us."""

        async def one(number: int) -> None:
            app = self._apps[BELOW]
            task_id = str((await app.spawn("nothing", {"number": number}, queue=BELOW))["task_id"])
            if how == "waited for by its SDK":
                found = await app.await_task_result(task_id, queue_name=BELOW)
            else:
                found = await self._ended(BELOW, task_id, SOONEST_S)
            expect(found.result, number)

        return await one_by_one(pauses_s, one)

    async def _spawn_steps(self, number: int) -> None:
        await self._apps[BELOW].spawn("ten_steps", {"number": number}, queue=BELOW)

    async def _ended(self, queue: str, task_id: str, pause_s: float) -> Any:
        while True:
            found = await self._apps[queue].fetch_task_result(task_id, queue_name=queue)
            if found is not None and found.state in ENDED:
                return found
            await asyncio.sleep(pause_s)

    async def _left(self, queue: str) -> int:
        return await self._count(f"select count(*) from absurd.t_{queue} where state not in {ENDED!r}")

    async def _count(self, sql: str) -> int:
        row = await (await self._own.execute(sql.encode())).fetchone()
        assert row is not None
        return int(row[0])


@contextmanager
def running_workers() -> Generator[list[int], None, None]:
    """Run workers for the block; gives their ids. A parent has one to itself: it holds it while it waits."""
    wanted = [(MAIN, "sync", 1)]
    wanted += [(BELOW, OPTIONS.get("api", "sync"), OPTIONS.get("concurrency", 1))] * OPTIONS.get("processes", 1)
    assert __spec__ is not None
    again = [sys.executable, "-m", __spec__.name, *sys.argv[1:]]
    workers = [subprocess.Popen([*again, queue, api, str(concurrency)]) for queue, api, concurrency in wanted]
    try:
        yield [worker.pid for worker in workers]
    finally:
        for worker in workers:
            worker.kill()
            worker.wait()


async def main() -> None:
    """Make the tables, start workers, and do as told."""
    async with await psycopg.AsyncConnection.connect(URL, autocommit=True) as own:
        await own.execute(absurdctl.BUNDLED_SCHEMA_SQL.encode())
        for queue in (MAIN, BELOW):
            await own.execute(b"select absurd.create_queue(%s)", [queue])
        with running_workers() as workers:
            orders = Orders(own)
            hello = {"version": importlib.metadata.version("absurd-sdk"), "workers": workers}
            await serve(hello, {"steps": orders.steps, "children": orders.children, "latency": orders.latency})


if len(sys.argv) > 3:
    work(sys.argv[3], sys.argv[4], int(sys.argv[5]))
else:
    asyncio.run(main())
