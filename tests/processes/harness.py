"""Real worker processes, and the books that are compared at the end: the ledger and the journals.

The rule: nothing waits for a time, everything for a condition; whatever was started is ended by its own pid.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import itertools
import json
import os
import signal
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import continuum
from tests.journal.harness import select

T = TypeVar("T")
PATIENCE_S = 30.0  # of a whole takeover, on a machine that does other things as well
LOOK_S = 0.01
FLOWS, PARENTS = "tests.processes.flows", "tests.processes.parents"
SETTINGS = {"lease": 1, "heartbeat": 0.2, "poll": 0.2, "passivate_after": 5, "drain": 5}
LONG = bool(os.environ.get("CONTINUUM_LONG"))
ROOT = Path(__file__).parents[2]


async def until(condition: Callable[[], Awaitable[T] | T], what: str = "", *, patience_s: float = PATIENCE_S) -> T:
    """Return what ``condition`` gives as soon as it is true of anything; fail, saying ``what``, if it never is."""
    deadline = asyncio.get_running_loop().time() + patience_s
    while True:
        given = condition()
        found: Any = await given if inspect.isawaitable(given) else given
        if found:
            return found  # type: ignore[no-any-return]
        assert asyncio.get_running_loop().time() < deadline, f"did not come true: {what or condition}"
        await asyncio.sleep(LOOK_S)


class Line(NamedTuple):
    """One line of the ledger: ``label`` is ``run#step``."""

    kind: str
    label: str
    pid: int


class Nursery:
    """The process that all workers of this test session are forked from."""

    def __init__(self) -> None:
        environ = {key: value for key, value in os.environ.items() if not key.startswith("CONTINUUM_")}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.processes.nursery"],
            cwd=ROOT,
            env=environ,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def start(self, order: dict[str, Any]) -> int:
        """Start a worker and return its pid."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())

    def close(self) -> None:
        """End it, and whatever it started."""
        self._process.communicate()


class WorkerProcess:
    """One worker process; what it prints and logs, and how it ended, is in files."""

    def __init__(self, nursery: Nursery, order: dict[str, Any], folder: Path, name: str) -> None:
        self.name = name
        self._out, self._log, self._ended = (folder / f"{name}.{part}" for part in ("out", "log", "ended"))
        self._out.touch()
        self._log.touch()
        files = {"out": str(self._out), "log": str(self._log), "ended": str(self._ended), "folder": str(folder)}
        self.pid = nursery.start({**order, **files})

    @property
    def code(self) -> int | None:
        """How it ended: its exit code, or the signal's number below 0. None while it runs."""
        text = self._ended.read_text() if self._ended.exists() else ""
        return int(text) if text.endswith("\n") else None

    def log(self) -> str:
        """Return the last of what it logged."""
        return self._log.read_text()[-6000:]

    def said(self, word: str) -> list[str]:
        """Return what it said with this word, so often as it did, in lines that are whole."""
        lines = self._out.read_text().rpartition("\n")[0].splitlines()
        return [line.partition(" ")[2] for line in lines if line.split(" ")[0] == word]

    async def ready(self) -> str:
        """Wait until it works, and return its id."""

        def looked() -> list[str]:
            assert self.code is None, f"{self.name} ended: {self.log()}"
            return self.said("ready")

        return (await until(looked, f"{self.name} is ready"))[0]

    def kill(self) -> None:
        self._send(signal.SIGKILL)

    def freeze(self) -> None:
        self._send(signal.SIGSTOP)

    def thaw(self) -> None:
        self._send(signal.SIGCONT)

    def terminate(self) -> None:
        self._send(signal.SIGTERM)

    async def ended(self) -> int:
        """Wait until it is gone, and return its exit code."""
        await until(lambda: self.code is not None, f"{self.name} ends")
        assert self.code is not None
        return self.code

    async def die(self) -> None:
        """Kill it, and wait until it is gone."""
        self.kill()
        await self.ended()

    def _send(self, number: signal.Signals) -> None:
        assert self.code is None, f"{self.name} has ended"
        os.kill(self.pid, number)


class Site:
    """A database, a folder with the ledger, a client, and the processes of one test."""

    def __init__(self, url: str, folder: Path, client: continuum.Client, nursery: Nursery) -> None:
        self.url = url
        self._nursery = nursery
        self.folder = folder
        self.client = client
        self.workers: list[WorkerProcess] = []

    def worker(
        self,
        *definitions: str,
        url: str | None = None,
        crashes: list[dict[str, Any]] | None = None,
        gate: str = "",
        clock: str = "",
        tells: bool = False,
        **settings: Any,
    ) -> WorkerProcess:
        """Start a worker with all flows, or with what is named; it begins when the ``gate`` is open.

        If it ``tells``, it says what its listener is told.

        ``clock``: which way the clocks of its host go wrong, "forward" or "back".
        """
        order = {
            "url": url or self.url,
            "sources": [name if "." in name else f"{FLOWS}:{name}" for name in definitions] or [FLOWS, PARENTS],
            "settings": {**SETTINGS, **settings},
            "crashes": crashes or [],
            "wait_for": str(self.folder / gate) if gate else None,
            "clock": clock,
            "tells": tells,
        }
        worker = WorkerProcess(self._nursery, order, self.folder, f"worker{len(self.workers)}")
        self.workers.append(worker)
        return worker

    async def start(self, flow: Any, run: str, **job: Any) -> continuum.RunHandle[Any]:
        """Start a run whose job knows its own id."""
        from tests.processes.flows import Job

        return await self.client.start(flow, Job(run, **job), id=run)

    def open(self, gate: str) -> None:
        (self.folder / gate).touch()

    def ledger(self) -> list[Line]:
        """Return the ledger's whole lines."""
        path = self.folder / "ledger"
        text = path.read_text() if path.exists() else ""
        lines = text[: text.rfind("\n") + 1].splitlines()
        return [Line(kind, label, int(pid)) for kind, label, pid in (line.split(" ") for line in lines)]

    def did(self, label: str) -> list[int]:
        """Return the processes that did this step, in order."""
        return [line.pid for line in self.ledger() if line.label == label]

    def sql(self, statement: str, *arguments: object) -> list[tuple[Any, ...]]:
        return select(self.url, statement, *arguments)

    def one(self, statement: str, *arguments: object) -> Any:
        """Return the one value that a statement gives."""
        return self.sql(statement, *arguments)[0][0]

    def entries(self, run: str, generation: int = 1) -> list[tuple[str, str]]:
        """Return type and key of a generation's entries, in order."""
        sql = "select type, key from continuum.events where run_id = %s and generation = %s order by seq"
        return [(kind, key) for kind, key in self.sql(sql, run, generation)]

    def tokens(self, pattern: str) -> set[int]:
        """Return the lease tokens of the runs whose ids are like ``pattern``."""
        return {row[0] for row in self.sql("select lease_token from continuum.runs where run_id like %s", pattern)}

    def alive(self) -> set[int]:
        """Return the processes whose workers are not declared dead."""
        return {
            row[0] for row in self.sql("select (info->>'pid')::int from continuum.workers where dead_at is null")
        }

    def declared_dead(self) -> int:
        return int(self.one("select count(*) from continuum.workers where dead_at is not null"))

    def close(self) -> None:
        """End every process, frozen ones too, and show what they said if the test fails."""
        for worker in self.workers:
            if worker.code is None:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(worker.pid, signal.SIGKILL)
        deadline = time.monotonic() + PATIENCE_S
        for worker in self.workers:
            while worker.code is None:
                assert time.monotonic() < deadline, f"{worker.name} does not end"
                time.sleep(LOOK_S)
            print(f"--- {worker.name} (pid {worker.pid}, ended with {worker.code})\n{worker.log()}")

    # --- the books

    def check(self, *, open_runs: int = 0, late: tuple[int, ...] = ()) -> None:
        """Compare the ledger with the journals: nothing missing, twice only what was in flight, and no gap.

        ``late`` are processes that were declared dead and went on: what their activities did once more, and after
        others, is no line of this book.
        """
        self._check_journals(open_runs)
        did: dict[str, list[str]] = defaultdict(list)
        for line in self.ledger():
            if line.pid not in late:
                run, _, number = line.label.partition("#")
                did[run].append(number)
        for run, numbers in did.items():
            once = [number for number, _ in itertools.groupby(numbers)]
            assert len(once) == len(set(once)), f"{run} did again what was not in flight: {numbers}"
        journaled = [row[0] for row in self.sql(_JOURNALED)]
        assert len(journaled) == len(set(journaled)), "an activity is journaled twice"
        lines = {line.label for line in self.ledger()}
        assert set(journaled) <= lines, "the journals have what was never done"
        if not open_runs:
            assert lines <= set(journaled), "what was done is not in the journals"

    def _check_journals(self, open_runs: int) -> None:
        gaps = self.sql(_GAPS)
        assert gaps == [], f"gaps in journals: {gaps}"
        states = dict(self.sql("select state, count(*) from continuum.runs group by 1"))
        ended = states.get("completed", 0)
        assert sum(states.values()) - ended == open_runs, f"not all runs completed: {states}"


_JOURNALED = """
select payload->'input'->>'label' from continuum.events where type in ('activity_completed', 'activity_failed')"""
_GAPS = """
select run_id, generation, array_agg(seq order by seq) from continuum.events group by run_id, generation
having min(seq) <> (case when generation = 1 then 1 else 0 end) or max(seq) - min(seq) + 1 <> count(*)"""


@contextlib.contextmanager
def closing(site: Site) -> Iterator[Site]:
    try:
        yield site
    finally:
        site.close()
