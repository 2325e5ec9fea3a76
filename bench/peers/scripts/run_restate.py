"""Restate: a server with a store of its own, handlers served by hypercorn, and this process as their caller.

The rule: the server keeps its data in a fresh folder beside that of Postgres, listens on loopback only, and has
its default settings but for ports and log; so its log is synced to disk before an answer, which its settings call
``rocksdb-disable-wal-fsync = false``. hypercorn imports this module once more, for the handlers.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.metadata
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Generator
from typing import Any

import httpx
import restate

from bench.peers.scripts.orders import STEPS, Answer, expect, in_flight, one_by_one, order_of, serve

READY_WITHIN_S = 60.0
ENDS_WITHIN_S = 10.0
WAVE = 500
service = restate.Service("Bench")


async def _book(order: dict[str, Any]) -> str:
    return str(order["order"])


@service.handler()
async def ten_steps(ctx: restate.Context, number: int) -> int:
    """Run a step ten times."""
    found = [
        await ctx.run_typed(f"book-{at}", _book, restate.RunOptions(), order=order_of(at)) for at in range(STEPS)
    ]
    return sum(len(order) == 8 for order in found)


@service.handler()
async def nothing(ctx: restate.Context, number: int) -> int:
    """End at once."""
    return number


@service.handler()
async def parent(ctx: restate.Context, given: dict[str, int]) -> int:
    """Call children, so many at a time, and wait for all of them."""
    done = 0
    for first in range(0, given["children"], given["wave"]):
        numbers = range(first, min(first + given["wave"], given["children"]))
        calls = [ctx.service_call(nothing, number) for number in numbers]
        await restate.gather(*calls)
        done += sum([await call == number for call, number in zip(calls, numbers, strict=True)])
    return done


app = restate.app(services=[service])


class Orders:
    """What can be asked of the engine, through its HTTP ingress."""

    def __init__(self, http: httpx.AsyncClient) -> None:
        self._http = http

    async def steps(self, workflows: int, at_once: int) -> Answer:
        """Run workflows of ten steps."""

        async def one(number: int) -> None:
            expect(await self._call("ten_steps", number), STEPS)

        return await in_flight(workflows, at_once, one)

    async def children(self, children: int, how: str) -> Answer:
        """Run a parent with so many children: ``all at once``, or in ``waves``."""
        wave = WAVE if how == "waves" else children
        started = time.perf_counter()
        expect(await self._call("parent", {"children": children, "wave": wave}), children)
        return {"seconds": time.perf_counter() - started}

    async def latency(self, pauses_s: list[float], how: str) -> Answer:
        """Run handlers that do nothing, one after the other."""

        async def one(number: int) -> None:
            expect(await self._call("nothing", number), number)

        return await one_by_one(pauses_s, one)

    async def _call(self, handler: str, given: object) -> Any:
        answer = await self._http.post(f"/Bench/{handler}", json=given)
        answer.raise_for_status()
        return answer.json()


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@contextlib.contextmanager
def running(command: list[str], env: dict[str, str], port: int) -> Generator[int, None, None]:
    """Run a process that listens on a port, for the block; gives its id."""
    process = subprocess.Popen(command, env=env, stdin=subprocess.DEVNULL)
    try:
        until = time.monotonic() + READY_WITHIN_S
        while not _listens(port):
            if process.poll() is not None or time.monotonic() > until:
                raise RuntimeError(f"{command[0]} does not listen")
            time.sleep(0.05)
        yield process.pid
    finally:
        process.terminate()
        try:
            process.wait(ENDS_WITHIN_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 0.3).close()
    except OSError:
        return False
    return True


def settings_of(options: dict[str, Any], ports: tuple[int, int, int]) -> dict[str, str]:
    """Return the environment of the server."""
    ingress, admin, node = map(str, ports)
    return os.environ | {
        "RESTATE_DISABLE_TELEMETRY": "true",
        "DO_NOT_TRACK": "1",
        "RESTATE_BASE_DIR": options["folder"],
        "RESTATE_NODE_NAME": "bench",
        "RESTATE_LISTEN_MODE": "tcp",
        "RESTATE_BIND_IP": "127.0.0.1",
        "RESTATE_BIND_PORT": node,
        "RESTATE_ADMIN__BIND_PORT": admin,
        "RESTATE_INGRESS__BIND_PORT": ingress,
        "RESTATE_LOG_FILTER": "warn",
        **options.get("config", {}),
    }


def version_of(server: str) -> str:
    """Return the versions of server and SDK."""
    told = subprocess.run([server, "--version"], capture_output=True, text=True, check=True).stdout
    return f"{told.split()[-1]} with SDK {importlib.metadata.version('restate-sdk')}"


async def main() -> None:
    """Start the server and the handlers, make them known to each other, and do as told."""
    options = json.loads(sys.argv[2])
    ingress, admin, node, handlers = (free_port() for _ in range(4))
    hypercorn = [sys.executable, "-m", "hypercorn", "--workers", str(options.get("processes", 1))]
    hypercorn += [
        "--bind",
        f"127.0.0.1:{handlers}",
        "--log-level",
        "WARNING",
        "bench.peers.scripts.run_restate:app",
    ]
    with (
        running([options["server"], "--no-logo"], settings_of(options, (ingress, admin, node)), ingress) as server,
        running(hypercorn, dict(os.environ), handlers) as served,
    ):
        limits = httpx.Limits(max_connections=2_000, max_keepalive_connections=2_000)
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{ingress}", limits=limits, timeout=120) as http:
            await _register(http, admin, handlers)
            orders = Orders(http)
            hello = {"version": version_of(options["server"]), "workers": [served], "stores": [server]}
            await serve(hello, {"steps": orders.steps, "children": orders.children, "latency": orders.latency})


async def _register(http: httpx.AsyncClient, admin: int, handlers: int) -> None:
    until = time.monotonic() + READY_WITHIN_S
    while True:
        with contextlib.suppress(httpx.HTTPError):
            where = {"uri": f"http://127.0.0.1:{handlers}"}
            answer = await http.post(f"http://127.0.0.1:{admin}/deployments", json=where)
            if answer.is_success:
                return
        if time.monotonic() > until:
            raise RuntimeError("the handlers could not be made known")
        await asyncio.sleep(0.2)


if __name__ == "__main__":
    asyncio.run(main())
