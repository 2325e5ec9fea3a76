"""Processes that can be killed between any two steps, on a clock that a test moves.

The rule: a process is a loop that somebody steps. Who is killed is never stepped again, so nothing of it, no
clean-up and no answer, reaches anybody. Activities run on the loop of their worker, and end with it.
"""

from __future__ import annotations

import asyncio
import heapq
import inspect
from asyncio import events
from collections import deque
from collections.abc import Callable, Collection, Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextvars import Context, ContextVar, copy_context
from dataclasses import dataclass
from random import Random
from typing import Any, Protocol, TypeVar, cast

from continuum._core.commands import RunActivity
from continuum._engine.activities import Activities
from continuum._engine.engine import Engine
from continuum._engine.resident import Resident
from continuum._engine.settings import WorkerSettings
from continuum._engine.slots import Slots
from continuum._engine.timers import Timers
from continuum._journal.memory.journal import MemoryJournal
from continuum._journal.memory.store import Memory
from continuum._journal.memory.writer import NotSent
from continuum.activity import Activity
from continuum.definitions import Definitions
from continuum.testing.replacing import Call, StandIns

T = TypeVar("T")
WRITES = ("flush", "large")  # the operations of the journal that are a worker's commits
MOST_LAST_STEPS = 10_000  # of a process that is over
IN_ACTIVITY: ContextVar[bool] = ContextVar("continuum_testing_in_activity", default=False)


class Clock:
    """The time of one world, in microseconds since it began."""

    def __init__(self) -> None:
        self.elapsed_us = 0


class MortalLoop(asyncio.SelectorEventLoop):
    """A loop that is stepped from outside, with two kinds of timers.

    Those of runs and of activities are waited for; the others are the engine's own (polls, heartbeats), which a
    jump of time takes along. ``pending`` counts threads that were asked for something.
    """

    _ready: deque[asyncio.Handle]  # what asyncio's own loop keeps, for nothing else steps it

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self._clock = clock
        self._ordered = 0
        self._of_runs: list[tuple[int, int, asyncio.TimerHandle]] = []
        self._own: list[tuple[int, int, asyncio.TimerHandle]] = []
        self.pending = 0

    def time(self) -> float:
        """Return the world's time, in the middle of its microsecond so that no rounding leaves that."""
        return (self._clock.elapsed_us + 0.5) / 1_000_000

    def call_at(  # type: ignore[override]  # as typeshed has it, but for the arguments' own types
        self, when: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        """Call back at a time of the world's."""
        timer = asyncio.TimerHandle(when, callback, args, self, context)
        of_runs = IN_ACTIVITY.get() or isinstance(getattr(callback, "__self__", None), (Timers, Slots, Activities))
        self._ordered += 1
        heapq.heappush(self._of_runs if of_runs else self._own, (int(when * 1_000_000), self._ordered, timer))
        return timer

    def run_in_executor(  # type: ignore[override]  # as typeshed has it, but for the arguments' own types
        self, executor: Any, func: Callable[..., T], *args: Any
    ) -> asyncio.Future[T]:
        """Ask a thread for something, and take note of that."""
        asked = cast("asyncio.Future[T]", super().run_in_executor(executor, func, *args))
        self.pending += 1
        asked.add_done_callback(self._answered)
        return asked

    def _answered(self, _: object) -> None:
        self.pending -= 1

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """Let it lie until its time."""

    # --- what the world does

    def due_us(self) -> int | None:
        """Return when the next attempt or bound of an activity, or a timer of its own, is due."""
        while self._of_runs and self._of_runs[0][2].cancelled():
            heapq.heappop(self._of_runs)
        return min((when for when, _, timer in self._of_runs if not _is_looking(timer)), default=None)

    def own_due_us(self) -> int | None:
        """Return when the engine has something to do by itself."""
        return _first(self._own)

    def fire(self) -> bool:
        """Make ready what is due; return whether there was anything of a run's."""
        found = False
        until = self._clock.elapsed_us
        for heap in (self._of_runs, self._own):
            while heap and heap[0][0] <= until:
                timer = heapq.heappop(heap)[2]
                if not timer.cancelled():
                    self._ready.append(timer)
                    found = found or heap is self._of_runs
        return found

    def shift(self, by_us: int) -> None:
        """Let all that the engine waits for by itself be so much later."""
        self._own = [(when + by_us, number, timer) for when, number, timer in self._own]

    def waits_outside(self) -> bool:
        """Tell whether something is to come from outside: a socket, a thread."""
        selector = cast("Any", self)._selector
        return self.pending > 0 or len(selector.get_map()) > 1  # one is the loop's own

    def listen(self, for_s: float) -> None:
        """Take in what has come from outside, waiting so long for it."""
        loop = cast("Any", self)
        loop._process_events(loop._selector.select(for_s))

    def step(self, alive: Callable[[], bool]) -> bool:
        """Run what is ready now; say whether there was anything."""
        if self.waits_outside():
            self.listen(0)
        count = len(self._ready)
        if not count:
            return False
        before = events._get_running_loop()
        events._set_running_loop(self)
        try:
            for _ in range(count):
                handle = self._ready.popleft()
                if not handle._cancelled:
                    handle._run()
                if not alive():
                    break
        finally:
            events._set_running_loop(before)
        return True


def _is_looking(timer: asyncio.TimerHandle) -> bool:
    """Tell whether this is the engine looking at its runs' timers, which it does every hour; or is cancelled."""
    return timer.cancelled() or isinstance(getattr(cast("Any", timer)._callback, "__self__", None), Timers)


def _first(heap: list[tuple[int, int, asyncio.TimerHandle]]) -> int | None:
    while heap and heap[0][2].cancelled():
        heapq.heappop(heap)
    return heap[0][0] if heap else None


class Watch(Protocol):
    """Whoever is told of each commit of a worker, before it and after it, and may kill the worker there."""

    def passes(self, process: Process, moment: str, groups: Any) -> bool:
        """Say whether the process may go on; ``moment`` is "before" or "after"."""
        ...


class Process:
    """One process. ``name`` is never used again; of one ``role`` there is one at a time."""

    def __init__(self, name: str, role: str, clock: Clock, memory: Memory, watch: Watch | None) -> None:
        self.name, self.role = name, role
        self.alive = True
        self.under_way = 0  # activities
        self.loop = MortalLoop(clock)
        self.journal = MemoryJournal(memory, wire=_Wire(self, watch))
        self._main: asyncio.Task[Any] | None = None

    def begin(self, main: Coroutine[Any, Any, object]) -> None:
        """Let the process do ``main``."""
        self._main = self.loop.create_task(main)

    def step(self) -> bool:
        """Run what is ready; say whether there was anything."""
        return self.loop.step(lambda: self.alive)

    def trouble(self) -> BaseException | None:
        """Return what ended it, if it ended by itself."""
        if self._main is None or not self._main.done() or self._main.cancelled():
            return None
        return self._main.exception()

    def bury(self) -> None:
        """Let a process that is over end its coroutines, unheard, so that nothing of it is left."""
        self.alive = False
        for task in asyncio.all_tasks(self.loop):
            task.cancel()
        for _ in range(MOST_LAST_STEPS):
            try:
                if not self.loop.step(lambda: True):
                    break
            except (SystemExit, KeyboardInterrupt):
                break
        self.loop.set_exception_handler(_unheard)
        self.loop.close()


def _unheard(_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Take what nobody is to hear of any more."""


class WorkerProcess(Process):
    """A worker: the real engine."""

    def __init__(
        self,
        name: str,
        role: str,
        clock: Clock,
        memory: Memory,
        watch: Watch,
        *,
        stand_ins: InPlace,
        definitions: Definitions,
        settings: WorkerSettings,
        chance: Random,
    ) -> None:
        super().__init__(name, role, clock, memory, watch)
        self._stand_ins, self._definitions, self._settings = stand_ins, definitions, settings
        self._chance = chance
        self.engine: Engine | None = None
        self.begin(self._serve())

    def timer_us(self) -> int | None:
        """Return when the next timer of a run in memory is due, by the journal's clock."""
        if self.engine is None:
            return None
        heap = self.engine.timers._heap  # its top is the next one, unless that was cancelled
        if heap and heap[0][2].timers.get(heap[0][3]) == heap[0][0]:
            return heap[0][0]
        residents = self.engine.residents.by_id.values()
        return min((min(run.timers.values()) for run in residents if run.timers), default=None)

    def bury(self) -> None:
        """End it, with the runs that it has in memory."""
        super().bury()
        if self.engine is not None:
            self.engine.residents.drop_all()
            self.engine.timers.close()

    async def _serve(self) -> None:
        lives = iter(range(1, 1_000_000))
        engine = self.engine = Engine(
            self.journal,
            self._definitions,
            self._settings,
            chance=self._chance,
            name_worker=lambda: f"{self.name}.{next(lives)}",
        )
        self._stand_ins.attend(engine, self)
        async with self.journal.open():
            await engine.run()


class _Wire:
    """A process's way to the journal. It breaks when the process dies, and at no other time."""

    epoch = 1

    def __init__(self, process: Process, watch: Watch | None) -> None:
        self._process, self._watch = process, watch

    async def __call__(self, what: str, operation: Callable[..., T], *values: Any) -> T:
        await asyncio.sleep(0)
        if not self._process.alive:
            raise NotSent("the process is over")
        if self._watch is None or what not in WRITES:
            return operation(*values)
        await self._pass("before", values[-1])
        done = operation(*values)
        await self._pass("after", values[-1])
        return done

    async def _pass(self, moment: str, groups: Collection[Any]) -> None:
        assert self._watch is not None
        if not self._watch.passes(self._process, moment, groups):
            self._process.alive = False
            await asyncio.get_running_loop().create_future()  # which nobody resolves


@dataclass(frozen=True, slots=True, order=True)
class Begun:
    """An activity of a run that has begun, once or more often."""

    run_id: str
    generation: int
    key: str
    name: str

    def __str__(self) -> str:
        generation = f" (generation {self.generation})" * (self.generation > 1)
        return f"activity {self.key} of run {self.run_id!r}{generation}"


class InPlace(StandIns):
    """Stand-ins that run on the loop of their worker, also what is not ``async``: that in a thread, waited for."""

    def __init__(self, definitions: Definitions) -> None:
        super().__init__(definitions, cast("Any", None))
        self.begun: list[tuple[Process, Begun]] = []
        self._pool = ThreadPoolExecutor(1, "continuum-activity")

    def attend(self, engine: Engine, process: Process | None = None) -> None:
        """Run stand-ins for the activities that ``engine`` is asked to run."""
        start = engine.activities.start

        def start_stand_in(
            owner: object, request: RunActivity, activity: Activity[Any, Any], attempt: int = 1
        ) -> None:
            assert process is not None
            run_id, generation, _ = cast("Resident", owner).about
            begun = Begun(run_id, generation, request.key, request.name)
            start(owner, request, self._made(activity, begun, process), attempt)

        engine.activities.start = start_stand_in  # type: ignore[method-assign]  # the engine has no other place for it

    def close(self) -> None:
        """End the thread."""
        self._pool.shutdown(wait=False)

    def _made(self, activity: Activity[Any, Any], begun: Begun, process: Process) -> Activity[Any, Any]:
        async def stand_in(*args: Any, **kwargs: Any) -> Any:
            IN_ACTIVITY.set(True)
            self.begun.append((process, begun))
            call = self._call(activity, begun.run_id, args, kwargs)
            function, args, kwargs = self._function(activity, args, kwargs)
            in_thread = function is activity.function and not inspect.iscoroutinefunction(function)
            process.under_way += 1
            try:
                return await self._outcome(call, in_thread, lambda: function(*args, **kwargs))
            finally:
                process.under_way -= 1

        made = self._activity(activity, begun.run_id, begun.key, iter(()))
        made.function = stand_in
        made.parameters = self._lanes.setdefault((activity.parameters, True), made.parameters)
        return made

    async def _outcome(self, call: Call[Any], in_thread: bool, function: Callable[[], Any]) -> Any:
        try:
            value = self._pool.submit(copy_context().run, function).result() if in_thread else function()
            call.result = await value if inspect.isawaitable(value) else value
        except BaseException as error:
            call.error = error
            raise
        return call.result
