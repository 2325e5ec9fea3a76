"""Killing a workflow's worker before and after each of its commits, and comparing what comes of it each time.

    crash_explorer(batch_flow, batch, replace={charge: fake_charge})

The rule: whatever a crash leaves, the run must end as it does without one: with the same result, the same journals
and the same outside world. It runs the real engine on a journal in memory, and time is virtual.
"""

from __future__ import annotations

import asyncio
import random
import threading
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from types import ModuleType
from typing import Any, cast

from continuum._asked import expect_flow
from continuum.activity import Activity
from continuum.definitions import Definition, Definitions
from continuum.descriptions import failure_of
from continuum.policies import Duration, duration, expect, refuse_unknown
from continuum.testing.errors import CrashDiverged, RunParked, RunStuck
from continuum.testing.played import RUN_ID, Meanwhile, Piece, Play, Played, Point
from continuum.testing.sides import difference, ledger_lines, lines_of
from continuum.workflow import Workflow

__all__ = ["CrashReport", "crash_explorer"]

SETTINGS = ("retry", "start_to_close", "max_activities", "max_child_depth")
OPTIONS = (
    *("sources", "replace", "meanwhile", "workers", "ledger", "reset", "exactly_once", "normalise"),
    *("max_boundaries", "seed", "lease", "stuck_after"),
)
NAMED = 5


@dataclass(frozen=True, slots=True)
class CrashReport:
    """What ``crash_explorer`` tried: the rest was equal, or it would have raised.

    ``boundaries`` are the places where a worker can be killed, one before and one after each commit; ``kills`` are
    those at which one was, ``left_out`` those beyond ``max_boundaries``, ``missed`` those that did not come again,
    since commits were batched in another way. ``ran_twice`` counts by name the activities that ran again because
    their worker died before they were recorded. ``runs`` are those of one play.
    """

    workflow: str
    boundaries: int
    kills: int
    runs: int
    workers: int
    left_out: int = 0
    missed: int = 0
    ran_twice: Mapping[str, int] = field(default_factory=dict[str, int])

    def __str__(self) -> str:
        parts = [f"{self.workflow}, {_count(self.workers, 'worker')}, {_count(self.runs, 'run')}: "]
        parts.append(
            f"{_count(self.boundaries, 'boundary', 'boundaries')}, {_count(self.kills, 'kill')}, all equal"
        )
        if self.left_out:
            parts.append(f"; {self.left_out} left out (max_boundaries)")
        if self.missed:
            parts.append(f"; {self.missed} did not come again")
        if self.ran_twice:
            again = ", ".join(f"{name} ({times})" for name, times in sorted(self.ran_twice.items()))
            parts.append(f"; ran twice: {again}")
        return "".join(parts)


def crash_explorer(
    flow: Workflow[Any, Any],
    input: Any = None,  # noqa: A002 - as Client.start has it
    *,
    sources: Iterable[ModuleType | Definition] | None = None,
    replace: Mapping[Any, Callable[..., Any]] | None = None,
    meanwhile: Meanwhile = (),
    workers: int = 1,
    ledger: Callable[[], Any] | None = None,
    reset: Callable[[], object] | None = None,
    exactly_once: Collection[Activity[..., Any]] = (),
    normalise: Callable[[Any], Any] | None = None,
    max_boundaries: int = 500,
    seed: int = 0,
    lease: Duration = 1,
    stuck_after: Duration = 60,
    **settings: Any,
) -> CrashReport:
    """Play a workflow, then once for each boundary with its worker killed there, and compare.

    A boundary lies before and after each commit of a worker. Who is killed does nothing any more; another worker
    takes over when the lease has passed. Compared are the results and the journals of the run and of all runs
    below it, and which activities were called. Raises ``CrashDiverged`` (an ``AssertionError``) with the boundary
    and both sides; ``RunStuck`` or ``RunParked`` if the run does not end without a crash either.

    ``sources`` are what the workers have: without it every workflow and activity that ``flow`` can reach by the
    names of its module. ``replace`` maps definitions to functions that are called in their place. ``meanwhile``
    are pairs of a ``timedelta`` since the beginning and a function of the run's handle, such as a signal. With
    ``workers=2`` the run is on one worker and all other workflows on another, and each of them is killed.

    ``reset()`` is called before each play and ``ledger()`` after it: what it returns, the state of your own
    outside world, must be equal too. An activity that was under way at the kill may run twice, which is reported;
    name it in ``exactly_once`` if it must not. ``normalise`` is given each result and payload and returns what is
    compared. Beyond ``max_boundaries`` so many are drawn by ``seed``. ``settings`` are a worker's.

    It waits, so call it from code without an event loop; where one runs, it does its work in a thread.

    >>> print(crash_explorer(batch_flow, batch))  # doctest: +SKIP
    batch_flow, 1 worker, 4 runs: 14 boundaries, 14 kills, all equal; ran twice: charge (3)
    """
    __tracebackhide__ = True
    refuse_unknown("crash_explorer()", settings, (*SETTINGS, *OPTIONS))
    _check(flow, meanwhile, exactly_once, max_boundaries)
    found = _reachable(flow) if sources is None else _given(flow, sources)
    lease_s, stuck_after_s = _seconds("lease", lease), _seconds("stuck_after", stuck_after)
    roles = _roles(flow, workers)
    piece = Piece(flow, input, found, replace or {}, meanwhile, roles, lease_s, stuck_after_s, settings)
    explorer = _Explorer(piece, ledger, reset, {one.name for one in exactly_once}, normalise or _as_it_is)
    return _apart(lambda: explorer.explore(max_boundaries, seed))


def _check(flow: object, meanwhile: Any, exactly_once: Any, max_boundaries: Any) -> None:
    """Raise ``TypeError`` or ``ValueError`` for what would fail later, or try nothing and call that equal."""
    expect_flow("crash_explorer", flow)
    expect("max_boundaries", max_boundaries, int, "a whole number")
    if max_boundaries < 1:
        raise ValueError(f"max_boundaries is a whole number from 1: got {max_boundaries}")
    for one in exactly_once:
        if not isinstance(one, Activity):
            raise TypeError(f"exactly_once= are activities' definitions: got {one!r}")
    for one in meanwhile:
        pair = cast("tuple[Any, ...]", one if isinstance(one, tuple) else ())
        if len(pair) != 2 or not isinstance(pair[0], timedelta) or not callable(pair[1]):
            raise TypeError(f"meanwhile= are pairs of a timedelta and a function of the run's handle: got {one!r}")


def _roles(flow: Workflow[Any, Any], workers: int) -> Mapping[str, Callable[[Workflow[Any, Any]], bool]]:
    """Return which worker has which workflows."""
    own = flow.name, flow.version
    if workers == 1:
        return {"worker": lambda _: True}
    if workers == 2:
        return {
            "parent": lambda one: (one.name, one.version) == own,
            "children": lambda one: (one.name, one.version) != own,
        }
    raise ValueError(f"workers= is 1, or 2 for a parent and its children apart: got {workers!r}")


def _seconds(name: str, given: Duration) -> float:
    return duration(name, given).total_seconds()


class _Explorer:
    """Plays, kills, compares."""

    def __init__(
        self,
        piece: Piece,
        ledger: Callable[[], Any] | None,
        reset: Callable[[], object] | None,
        exactly_once: Collection[str],
        normalise: Callable[[Any], Any],
    ) -> None:
        self._piece, self._ledger, self._reset = piece, ledger, reset
        self._exactly_once, self._normalise = exactly_once, normalise
        self._ran_twice: Counter[str] = Counter()

    def explore(self, most: int, seed: int) -> CrashReport:
        """Kill at each boundary."""
        quiet = self._played(None)
        self._check_quiet(quiet)
        passed = quiet.passed
        points = [Point(role, number) for role, count in passed.items() for number in range(1, count + 1)]
        chosen = points
        if len(points) > most:
            picked = set(random.Random(seed).sample(range(len(points)), most))
            chosen = [point for number, point in enumerate(points) if number in picked]
        killed = sum(self._survives(quiet, point) for point in chosen)
        return CrashReport(
            workflow=self._piece.flow.name,
            boundaries=len(points),
            kills=killed,
            runs=len(quiet.memory.runs),
            workers=len(passed),
            left_out=len(points) - len(chosen),
            missed=len(chosen) - killed,
            ran_twice=dict(self._ran_twice),
        )

    def _played(self, kill: Point | None) -> Played:
        if self._reset is not None:
            self._reset()
        return Play(self._piece, kill).run(self._ledger)

    def _lines(self, played: Played) -> list[str]:
        return [*lines_of(played, self._normalise), *ledger_lines(played)]

    def _check_quiet(self, quiet: Played) -> None:
        """Refuse what does not end undisturbed, or ends in another way each time."""
        if quiet.error is not None:
            raise quiet.error
        for run in quiet.memory.runs.values():
            if run.state == "parked":
                raise RunParked(run.run_id, _problem(run.error))
        if quiet.memory.runs[RUN_ID].live:
            raise RunStuck(RUN_ID, quiet.stuck)
        again = self._played(None)
        if found := difference(self._lines(quiet), self._lines(again)):
            hint = "Is something left over from the first play? See reset= and normalise=."
            raise CrashDiverged(self._piece.flow.name, "no crash at all, played a second time", f"{found}\n{hint}")

    def _survives(self, quiet: Played, point: Point) -> bool:
        """Kill at a boundary and compare; False if it did not come. Raises ``CrashDiverged``."""
        played = self._played(point)
        if not played.killed_at:
            return False
        if played.error is not None:
            raise played.error
        problems = [difference(self._lines(quiet), self._lines(played))]
        if played.memory.runs[RUN_ID].live:
            problems.insert(0, f"the run does not end: {played.stuck or _parked(played)}")
        problems += self._calls(quiet, played)
        found = "\n".join(problem for problem in problems if problem)
        if found:
            raise CrashDiverged(self._piece.flow.name, played.killed_at, found)
        return True

    def _calls(self, quiet: Played, played: Played) -> list[str]:
        """Return what is wrong with the calls of activities, and count those that ran again."""
        problems: list[str] = []
        for begun in sorted(quiet.begun.keys() | played.begun.keys()):
            before, times = quiet.begun[begun], played.begun[begun]
            if not before or not times:
                problems.append(f"{begun} began {times} times, and {before} times without the crash")
            elif times <= before:
                continue
            elif begun not in played.under_way:
                problems.append(f"{begun} ran again, though it was not under way at the kill")
            elif begun.name in self._exactly_once:
                problems.append(f"{begun} ran twice, and exactly_once names it")
            else:
                self._ran_twice[begun.name] += 1
        return problems[:NAMED]


def _parked(played: Played) -> str:
    names = [run.run_id for run in played.memory.runs.values() if run.state == "parked"]
    return ", ".join(f"run {name!r} is parked" for name in names)


def _problem(error: bytes | None) -> str:
    failure = failure_of(error)
    return failure.message or failure.type


def _apart(work: Callable[[], CrashReport]) -> CrashReport:
    """Do the work here, or in a thread if an event loop runs here, of which the loops of a world are no part."""
    __tracebackhide__ = True
    if asyncio._get_running_loop() is None:
        return work()
    done: list[CrashReport] = []
    failed: list[BaseException] = []

    def call() -> None:
        try:
            done.append(work())
        except BaseException as error:  # noqa: BLE001 - it is raised where somebody waits
            failed.append(error)

    thread = threading.Thread(target=call, name="continuum-crash-explorer")
    thread.start()
    thread.join()
    if failed:
        raise failed[0]
    return done[0]


def _given(flow: Workflow[Any, Any], sources: Iterable[ModuleType | Definition]) -> tuple[Definition, ...]:
    found = Definitions(sources)
    found.workflows.setdefault((flow.name, flow.version), flow)
    found.prepare()
    return (*found.workflows.values(), *found.activities.values())


def _reachable(flow: Workflow[Any, Any]) -> tuple[Definition, ...]:
    """Return the definitions that workflows can name, from the module of ``flow`` on, also as ``module.name``."""
    found: dict[int, Definition] = {id(flow): flow}
    waiting: list[Workflow[Any, Any]] = [flow]
    while waiting:
        names: dict[str, Any] = getattr(waiting.pop().function, "__globals__", {})
        values = list(names.values())
        for module in [value for value in values if isinstance(value, ModuleType)]:
            values += vars(module).values()
        for value in values:
            if isinstance(value, (Workflow, Activity)) and id(cast("Any", value)) not in found:
                definition = cast("Definition", value)
                found[id(definition)] = definition
                if isinstance(definition, Workflow):
                    waiting.append(definition)
    definitions = Definitions(found.values())
    definitions.prepare()
    return (*definitions.workflows.values(), *definitions.activities.values())


def _as_it_is(value: Any) -> Any:
    return value


def _count(number: int, one: str, many: str = "") -> str:
    return f"{number:,} {one if number == 1 else many or one + 's'}"
