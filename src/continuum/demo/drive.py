"""One demo, from an empty ledger to the verdict.

The rule: progress is read from the ledger, so that watching costs the database nothing; the verdict is taken from
ledger and journals together.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Protocol

from continuum.client import Client, connect
from continuum.demo.flows import Audit, Report, audit
from continuum.demo.journals import recorded
from continuum.demo.ledger import Ledger, compare
from continuum.demo.packages import as_text
from continuum.demo.processes import LEASE_S, Workers, workers
from continuum.embedded.locks import release, try_exclusive
from continuum.embedded.places import home_folder, make_home
from continuum.errors import ContinuumError, RunAlreadyExists
from continuum.runs import RunHandle

LOOK_S = 0.005
PARKED_S = 10.0  # between two looks for what is parked
FOLDER = "demo"


class RunParked(ContinuumError):
    """The audit cannot end before somebody resumes one of its runs."""


@dataclass(frozen=True, slots=True)
class Options:
    """What is asked for: a folder, or this Python's packages; how many kills; where the journal is."""

    tree: str | None = None
    kills: int = 1
    url: str | None = None
    schema: str | None = None
    home: str | None = None


@dataclass(frozen=True, slots=True)
class Figures:
    """What came of it. Beside those of ``steps`` activities, ``again`` executions were of no use, of which ``cut``
    were cut off; ``resumed`` runs went on under another worker; ``example`` is a package, of one of those if there
    are any.

    ``problems`` is what must not be: something is missing, or ran twice that was not in flight at a kill.
    """

    run_id: str
    ledger: str
    report: Report
    asked: int
    kills: int
    steps: int
    again: int
    cut: int
    resumed: int
    seconds: float
    example: str = ""
    problems: list[str] = field(default_factory=list[str])

    @property
    def ok(self) -> bool:
        """Whether there is no problem."""
        return not self.problems

    @property
    def missed(self) -> bool:
        """Whether the run was done before every kill had come."""
        return self.kills < self.asked

    @property
    def children_per_s(self) -> float:
        """Packages a second, takeovers included."""
        return self.report.packages / self.seconds if self.seconds else 0.0


class Display(Protocol):
    """Who is told how it goes."""

    def say(self, line: str) -> None: ...
    def progress(self, ledger: Ledger) -> None: ...
    def interrupted(self, run_id: str) -> None: ...


async def run_demo(options: Options, display: Display) -> Figures:
    """Run the demo and return its figures.

    Cancelled, by Ctrl-C for example, it ends its worker and leaves the run to whoever carries it on. Raises
    ``WorkerEnded``, ``RunFailed``, and what connecting raises.
    """
    tree = None if options.tree is None else as_text(os.path.abspath(options.tree))  # noqa: ASYNC240 - no I/O
    with _told_to_end():
        async with connect(options.url, schema=options.schema, home=options.home) as client:
            with _folder(home_folder(options.home)) as folder:
                run, ledger = await _started(client, folder, tree, display)
                try:
                    return await _followed(client, run, ledger, options, display)
                except asyncio.CancelledError:
                    display.interrupted(run.id)
                    raise


async def _started(
    client: Client, folder: Path, tree: str | None, display: Display
) -> tuple[RunHandle[Report], Ledger]:
    """Start a run under the next number that is free, with a ledger of its own."""
    audits = await client.list_runs(workflow=audit.name)
    unfinished = [run.id for run in audits if run.completed_at is None]
    if unfinished:
        display.say(f"unfinished from before, and carried on as well: {', '.join(sorted(unfinished))}")
    taken = [run.id.removeprefix("audit-") for run in audits]
    first = max((int(number) for number in taken if number.isdecimal()), default=0) + 1
    for number in count(first):
        path = folder / f"audit-{number}.ledger"
        given = Audit(as_text(str(path)), tree)
        try:
            path.touch(exist_ok=False)
            return await client.start(audit, given, id=f"audit-{number}"), Ledger(path)
        except (FileExistsError, RunAlreadyExists):
            continue
    raise AssertionError("there is always a next number")


async def _followed(
    client: Client, run: RunHandle[Report], ledger: Ledger, options: Options, display: Display
) -> Figures:
    """Have the run worked on until it has ended, and hold the ledger against the journals."""
    began = time.monotonic()
    log = ledger.path.with_suffix(".log")
    async with workers(log, url=options.url, schema=options.schema, home=options.home) as working:
        display.say(f"{run.id} is started; worker 1 is process {working.pid}")
        report = await _report(client, run, ledger, working, options.kills, display)
        seconds = time.monotonic() - began
    ledger.read_on()
    display.progress(ledger)
    executions, problems = await recorded(client, run.id, report)
    verdict = compare(ledger.executions.values(), executions, working.killed)
    strangers = {execution.pid for execution in ledger.executions.values()}.difference(working.pids)
    problems += [f"process {pid} took part: it is a worker, and none of this demo" for pid in sorted(strangers)]
    checked = [step.package for step in executions if step.package]
    return Figures(
        run_id=run.id,
        ledger=str(ledger.path),
        report=report,
        asked=options.kills,
        kills=len(working.killed),
        steps=len(executions),
        again=verdict.again,
        cut=verdict.cut,
        resumed=len(verdict.resumed) + bool(working.killed),  # the audit itself, which no activity tells of
        seconds=seconds,
        example=next(filter(None, [*verdict.resumed, *checked]), ""),
        problems=problems + verdict.problems,
    )


async def _report(
    client: Client, run: RunHandle[Report], ledger: Ledger, working: Workers, kills: int, display: Display
) -> Report:
    """Wait for the run's result, and meanwhile watch over the workers and kill them."""
    try:
        async with asyncio.TaskGroup() as group:
            services = (_watch(ledger, working, kills, display), _refuse_parked(client, run.id))
            watching = [group.create_task(service) for service in services]
            report = await run.result()
            for service in watching:
                service.cancel()
    except ExceptionGroup as several:
        error = several.exceptions[0]
        raise error from error.__cause__
    return report


async def _watch(ledger: Ledger, working: Workers, kills: int, display: Display) -> None:
    """Kill a worker each time that one more share of the work is done, and start the next one at once."""
    due = 1 / (kills + 2)
    while True:
        ledger.read_on()
        display.progress(ledger)
        working.check()
        if kills and ledger.share >= due:
            kills -= 1
            await working.kill()
            display.say(
                f"killed worker {working.number} by SIGKILL at {ledger.share:.0%}: "
                f"{ledger.done:,} of {ledger.packages:,} packages were done"
            )
            await working.start()
            display.say(
                f"worker {working.number} is process {working.pid}; it takes over when the lease has ended, "
                f"{LEASE_S:g} s after the last heartbeat"
            )
            due = ledger.share + (1 - ledger.share) / (kills + 2)
        await asyncio.sleep(LOOK_S)


async def _refuse_parked(client: Client, run_id: str) -> None:
    """Raise ``RunParked`` when a run of the tree is parked, for which the audit would wait for ever."""
    while True:
        await asyncio.sleep(PARKED_S)
        for run in await client.tree(run_id):
            if run.state == "parked":
                raise RunParked(f"run {run.id!r} is parked: {run.error}; `continuum runs show {run.id}` says more")


@contextmanager
def _folder(home: Path) -> Generator[Path, None, None]:
    """Give the folder for ledgers and logs, to one demo at a time: another's worker would take part in ours."""
    folder = home / FOLDER
    try:
        make_home(home, None)  # with a database elsewhere there may be none yet
        folder.mkdir(exist_ok=True)
        (folder / "lock").touch()
        lock = try_exclusive(folder / "lock")
    except OSError as error:
        raise ContinuumError(f"there is no place for the ledger: {error}; --home names another folder") from error
    if lock is None:
        raise ContinuumError(f"another demo runs in {home}: wait for it, or name another folder by --home")
    try:
        yield folder
    finally:
        release(lock)


@contextmanager
def _told_to_end() -> Generator[None, None, None]:
    """Take SIGTERM and SIGHUP as Ctrl-C is taken: the worker must not be left behind."""
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    assert task is not None
    numbers = (signal.SIGTERM, signal.SIGHUP)
    for number in numbers:
        loop.add_signal_handler(number, task.cancel)
    try:
        yield
    finally:
        for number in numbers:
            loop.remove_signal_handler(number)
