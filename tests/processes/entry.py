"""A worker as a process: connects, works, says on its output how it is, drains on SIGTERM.

``python -m tests.processes.entry ORDER`` with a JSON order: the url, the definitions, settings, and what shall
happen at which point. A crash strikes at its ``point``: for a run whose id ends with ``run``, once the ledger has
the text ``seen``, when it has been passed ``after`` times; it kills the process, or raises once. Several points,
with a ``|`` between them, are counted as one. With ``"do": "count"`` each pass is only said; with "gather"
the journal rests there for a moment, so that what others do meanwhile is one batch.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import logging
import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import continuum
from continuum._engine.hooks import POINTS, EngineHooks
from continuum._journal.hooks import POINTS as JOURNAL_POINTS
from continuum.worker import Worker
from tests.processes import wrong_clock

LOOK_S = 0.01
GATHER_S = 0.02


class Planted(Exception):
    """An error that a test has put there."""


class Crashes:
    """What shall happen at which point; serves as hooks of the engine and of the journal."""

    def __init__(self, orders: list[dict[str, Any]], ledger: Path) -> None:
        self._orders = [{"run": "", "seen": "", "after": 0, "do": "kill", **order} for order in orders]
        self._ledger = ledger
        for order in self._orders:
            assert set(order["point"].split("|")) <= POINTS | JOURNAL_POINTS, order

    def at(self, point: str, run_id: str) -> None:
        for order in self._orders:
            points = order["point"].split("|")
            if point not in points or not run_id.endswith(order["run"]) or not self._has(order["seen"]):
                continue
            if order["do"] == "gather":
                continue
            if order["do"] == "count":
                print(f"passed {point}", flush=True)
                continue
            order["after"] -= 1
            if order["after"] >= 0:
                continue
            print(f"struck {point}", flush=True)
            if order["do"] == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            self._orders.remove(order)
            raise Planted(f"planted at {point}")

    async def reach(self, point: str) -> None:
        self.at(point, "")
        if any(order["do"] == "gather" and order["point"] == point for order in self._orders):
            await asyncio.sleep(GATHER_S)

    def _has(self, text: str) -> bool:
        return not text or (self._ledger.exists() and text in self._ledger.read_text())


def definitions(names: list[str]) -> list[Any]:
    """Return what "module" or "module:name" stands for."""
    found: list[Any] = []
    for name in names:
        module, _, attribute = name.partition(":")
        loaded = importlib.import_module(module)
        found.append(getattr(loaded, attribute) if attribute else loaded)
    return found


async def main(order: dict[str, Any]) -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    gate = order.get("wait_for")
    sources = definitions(order["sources"])
    while gate and not Path(gate).exists():
        await asyncio.sleep(LOOK_S)
    if order["clock"]:
        wrong_clock.turn(order["clock"])
    crashes = Crashes(order["crashes"], Path(os.environ["CONTINUUM_TEST_FOLDER"]) / "ledger")
    hooks = EngineHooks(journal=crashes, points=crashes) if order["crashes"] else None
    async with (
        continuum.connect(order["url"], migrate=False) as client,
        Worker(
            client, sources, hooks=hooks, listeners=[tell] if order["tells"] else [], **order["settings"]
        ) as worker,
    ):
        print("ready", worker.id, flush=True)
        watching = asyncio.create_task(watch(worker))
        await stop.wait()
        print("draining", flush=True)
        watching.cancel()
    print("stopped", flush=True)


def tell(name: str, fields: Mapping[str, Any]) -> None:
    """Say what a listener is told."""
    print("told", json.dumps([name, dict(fields)]), flush=True)


async def watch(worker: Worker) -> None:
    """Say when heartbeats stop getting through for a lease time, when they do again, and a new id."""
    alive, known = True, worker.id
    while True:
        await asyncio.sleep(LOOK_S)
        if worker.alive != alive:
            alive = worker.alive
            print("heard" if alive else "silent", flush=True)
        if worker.id != known:
            known = worker.id
            print("reborn", known, flush=True)


def set_up_logging() -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")


if __name__ == "__main__":
    set_up_logging()
    asyncio.run(main(json.loads(sys.argv[1])))
