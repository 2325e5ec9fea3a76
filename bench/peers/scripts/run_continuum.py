"""Continuum as its users run it: ``continuum worker`` in processes of its own, the client in this one.

The rule: only what the documentation shows. The workflows are those of the other figures, ``bench/flows.py``.
"""

from __future__ import annotations

import asyncio
import importlib.metadata
import json
import sys
import time

from bench.flows import STEPS, nothing, parent, ten_steps
from bench.peers.scripts.orders import Answer, expect, in_flight, one_by_one, serve
from bench.worker import running_worker
from continuum import connect
from continuum.client import Client


class Orders:
    """What can be asked of the engine."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def steps(self, workflows: int, at_once: int) -> Answer:
        """Run workflows of ten steps."""

        async def one(number: int) -> None:
            expect(await (await self._client.start(ten_steps, number)).result(), STEPS)

        return await in_flight(workflows, at_once, one)

    async def children(self, children: int, how: str) -> Answer:
        """Run a parent with so many children that do nothing."""
        started = time.perf_counter()
        expect(await (await self._client.start(parent, children)).result(), children)
        return {"seconds": time.perf_counter() - started}

    async def latency(self, pauses_s: list[float], how: str) -> Answer:
        """Run workflows that do nothing, one after the other."""

        async def one(number: int) -> None:
            expect(await (await self._client.start(nothing, number)).result(), number)

        return await one_by_one(pauses_s, one)


async def main() -> None:
    """Start a worker, and do as told."""
    url, options = sys.argv[1], json.loads(sys.argv[2])
    async with connect(url) as client, running_worker(url, *options.get("worker", ())) as worker:
        orders = Orders(client)
        hello = {"version": importlib.metadata.version("continuum-py"), "workers": [worker.pid]}
        await serve(hello, {"steps": orders.steps, "children": orders.children, "latency": orders.latency})


asyncio.run(main())
