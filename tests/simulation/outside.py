"""The callers of a simulated cluster: they start runs, send what the scenario says, and wait for results.

The rule: a caller knows what the client tells it. What it cannot know, it asks again for. Only the operator, who
resumes what was parked, looks at the tables.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, TypeVar

from continuum import RunHandle, UpdateFailed, UpdateRefused
from continuum._core.failure import decode_failure
from continuum._core.jsontext import dump, load
from continuum._journal.memory.journal import MemoryJournal
from continuum.client import Client
from continuum.errors import (
    DatabaseBusy,
    DatabaseUnreachable,
    RunCancelled,
    RunFailed,
    RunNotActive,
    RunNotFound,
)
from tests.simulation.checker import Broken, Watched
from tests.simulation.processes import Process
from tests.simulation.programs import Action, Root, Scenario, simulated

if TYPE_CHECKING:
    from tests.simulation.cluster import Cluster

T = TypeVar("T")
ASKED_AGAIN_S = 0.5
LOOKED_AT_S = 5.0  # how often somebody looks for parked runs
OVER_S = 1.0  # how often somebody looks whether all is over
UNANSWERED = ("unanswered", "")


class Outside(Process):
    """A process that is a client, and is never killed.

    ``results`` is how roots ended, and ``answers`` what those who asked for an update were told, by run and id.
    """

    def __init__(self, cluster: Cluster, scenario: Scenario) -> None:
        super().__init__("client", lambda: cluster.now, 0.0)
        self.results: dict[str, tuple[str, Any]] = {}
        self.answers: dict[tuple[str, str], list[tuple[str, Any]]] = {}
        self.over = False
        self._scenario = scenario
        self._journal = MemoryJournal(cluster.memory, wire=cluster.network.wire(self))
        self._started: dict[str, asyncio.Event] = {}
        cluster.process = self  # whose loop the events below belong to
        self.begin(self._run())

    async def _run(self) -> None:
        self._started = {root.run_id: asyncio.Event() for root in self._scenario.roots}
        async with self._journal.open():
            client = Client(self._journal)
            async with asyncio.TaskGroup() as services:
                operator = services.create_task(self._resume_parked(client))
                async with asyncio.TaskGroup() as callers:
                    for root in self._scenario.roots:
                        callers.create_task(self._follow(client, root))
                    for action in self._scenario.actions:
                        callers.create_task(self._act(client, action))
                self.over = True
                while any(run.live for run in self._journal.memory.runs.values()):
                    await asyncio.sleep(OVER_S)  # children that nobody waited for may still need the operator
                operator.cancel()

    async def _follow(self, client: Client, root: Root) -> None:
        await asyncio.sleep(root.start_at_s)
        run = await _until_known(lambda: client.start(simulated, root.plan(), id=root.run_id))
        self._started[root.run_id].set()
        try:
            self.results[root.run_id] = ("completed", await _until_known(run.result))
        except RunFailed as error:
            self.results[root.run_id] = ("failed", str(error.failure))
        except RunCancelled as error:
            self.results[root.run_id] = ("cancelled", str(error))

    async def _act(self, client: Client, action: Action) -> None:
        await asyncio.sleep(action.at_s)
        root = next(root for root in self._scenario.roots if root.run_id == action.run_id.split("/")[0])
        await self._started[root.run_id].wait()
        run = client.get_run(action.run_id, simulated)
        try:
            match action.kind:
                case "start":
                    await _until_known(lambda: client.start(simulated, root.plan(), id=root.run_id))
                case "signal":
                    given = {"delivery_id": action.delivery_id} if action.delivery_id else {}
                    await _until_known(lambda: run.signal(action.name, action.payload, **given))
                case "update":
                    told = await self._update(run, action)
                    self.answers.setdefault((action.run_id, action.delivery_id), []).append(told)
                case "cancel":
                    await _until_known(lambda: run.cancel(str(action.payload)))
                case "stop":
                    await _until_known(lambda: run.cancel("by hand, gently", grace=action.payload))
                case "describe":
                    await _until_known(run.describe)
        except (RunNotFound, RunNotActive):
            pass

    async def _update(self, run: RunHandle[Any], action: Action) -> tuple[str, Any]:
        def ask() -> Awaitable[Any]:
            return run.update(action.name, action.payload, id=action.delivery_id)

        try:
            return "answered", await _until_known(ask)
        except UpdateRefused as error:
            return "refused", str(error.failure)
        except UpdateFailed as error:
            return UNANSWERED if error.failure.type == "RunEnded" else ("failed", str(error.failure))
        except RunNotActive:
            return UNANSWERED

    async def _resume_parked(self, client: Client) -> None:
        """Resume what was parked because workers died with it; nothing else is ever parked."""
        memory = self._journal.memory
        while True:
            await asyncio.sleep(LOOKED_AT_S)
            for run in [run for run in memory.runs.values() if run.state == "parked"]:
                if decode_failure(run.error or b"{}").type != "PoisonRun":
                    raise Broken(f"run {run.run_id!r} is parked: {run.error!r}")
                await _until_known(client.get_run(run.run_id).resume)

    def check(self, memory: Watched) -> None:
        """Raise ``Broken`` if what callers were told is not what the journal says."""
        for run_id, (state, told) in self.results.items():
            run = memory.runs[run_id]
            if run.state != state:
                raise Broken(f"run {run_id!r} is {run.state}, and its caller was told that it is {state}")
            if state == "completed" and load(run.result or b"null") != told:
                raise Broken(f"run {run_id!r} has result {run.result!r}, and its caller was told {told!r}")
        for (run_id, update_id), everyone in self.answers.items():
            answer = _answer(memory, run_id, update_id)
            for told in everyone:
                if told != answer:
                    raise Broken(f"update {update_id!r} of run {run_id!r} is {answer}, and somebody heard {told}")


def _answer(memory: Watched, run_id: str, update_id: str) -> tuple[str, Any]:
    """Return what the journal has as the answer to an update."""
    run = memory.runs[run_id]
    for entries in run.journal.values():
        for entry in entries.values():
            if (entry.type, entry.key) == ("update_answered", update_id):
                ((kind, value),) = load(entry.payload).items()
                if kind == "result":
                    return "answered", value
                return "refused" if kind == "refused" else "failed", str(decode_failure(dump(value)))
    return UNANSWERED


async def _until_known(ask: Callable[[], Awaitable[T]]) -> T:
    while True:
        try:
            return await ask()
        except (DatabaseUnreachable, DatabaseBusy):
            await asyncio.sleep(ASKED_AGAIN_S)
