"""The event loop of one run: no selector, no clock, no thread.

Workflow code is ordinary asyncio code: ``gather``, ``TaskGroup``, ``timeout``, ``Queue`` work because this loop
implements the few methods they call. The rules it obeys:

* Callbacks run in the order they were scheduled, only inside a turn, and a turn is bounded.
* Time stands still in a turn; a timer is handed to ``timers``, never waited for.
* Tasks and futures hash by their number: see ``tasks``. What asyncio does differently from Python to Python is
  pinned for the turn: see ``pinned``.
* A turn runs from a plain callback of the host loop, never inside a host task: 3.14 keeps one current task per
  thread.
* A discarded run's clean-up reaches nothing: see ``discard``.
"""

from __future__ import annotations

import asyncio
import sys
import warnings
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine
from contextvars import Context, copy_context
from inspect import CO_ITERABLE_COROUTINE
from types import CodeType
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar, cast
from zlib import crc32

from continuum._core import pinned
from continuum._core.discard import Kept, leave_generator
from continuum._core.faults import Forbidden, Unwind
from continuum._core.guards import Watch
from continuum._core.keys import Scope
from continuum._core.refusals import is_as_completed, refuse_on
from continuum._core.tasks import Handle, TimerHandle, Timers, WorkflowFuture, WorkflowTask
from continuum.errors import NotDeterministic, WorkflowMisuse

if TYPE_CHECKING:
    from continuum._core.machine import Machine

T = TypeVar("T")

MAX_UNHANDLED = 16
MAX_CALLBACKS_PER_TURN = 1_000_000  # gather over 100,000 refs takes some 400,000


_ASIDE = "this was called inside a side effect or a validator, which a replay does not repeat"


class WorkflowLoop(asyncio.AbstractEventLoop):
    """The loop of one run. Its owner calls ``enter``, then ``drain`` after each event, then ``leave``."""

    is_workflow_loop = True

    def __init__(self, machine: Machine, run_id: str) -> None:
        self.machine = machine
        self.timers: Timers | None = None  # set when there are any
        self.now_us = 0
        self.in_turn = False
        self.stopped = False
        self.discarded = False
        self.aside = False  # inside a side effect or a validator, which a replay does not repeat
        self.unstarted = 0  # calls of activities and children that nobody has awaited yet
        self.exit: SystemExit | None = None
        self.unhandled: list[dict[str, Any]] = []  # the first few exceptions that nobody looked at
        self.root = Scope()
        self._ready: deque[Handle] = deque()
        self.number = crc32(run_id.encode("utf-8", "surrogatepass"))
        self.budget = 0  # how many callbacks this turn may still run; set by the machine
        self._kept: Kept | None = None  # made with the second task, or the first async generator
        self._main: WorkflowTask | None = None
        self._host: Any = None  # the loop that is running outside of a turn
        self._alone: Sitting | None = None  # of this turn, if it is none of several

    # The turn.

    def enter(self) -> None:
        """Make this the running loop of the thread. Raises ``RuntimeError`` inside a task of the host loop."""
        host = asyncio._get_running_loop()
        if host not in _SITTINGS:
            alone = Sitting()
            alone.__enter__()
            self._alone = alone  # only now: one that was refused has nothing to end
        self._host = host
        asyncio._set_running_loop(self)
        self.in_turn = True

    def leave(self) -> None:
        """Give the thread back to the host loop."""
        self.in_turn = False
        asyncio._set_running_loop(self._host)
        alone, self._alone = self._alone, None
        if alone is not None:
            alone.__exit__(None, None, None)

    def drain(self) -> bool:
        """Run every ready callback and those they make ready; return False if that goes beyond ``budget``."""
        ready = self._ready
        while ready and not self.stopped:
            handle = ready.popleft()
            if handle._cancelled:
                continue
            self.budget -= 1  # no local: reading ahead begins a turn with a budget of its own
            if self.budget < 0:
                return False
            try:
                handle._context.run(handle._callback, *handle._args)
            except KeyboardInterrupt:
                raise
            except Unwind:
                continue
            except SystemExit as error:
                self.exit = error
                self.stopped = True
            except BaseException as error:  # noqa: BLE001 - a callback of the author's; the loop goes on as asyncio's does
                self.call_exception_handler({"message": "exception in a callback", "exception": error})
        return True

    def would_rest(self) -> bool:
        """Say whether the turn would end, with nothing else to come, if the task that is running began to wait."""
        if self._ready or self.stopped or self.machine.conditions.waiting:
            return False
        task = asyncio.current_task(self)
        return task is not None and not task.cancelling()

    def fire(self, handle: TimerHandle) -> None:
        """Make a timer's callback ready."""
        self._ready.append(handle)

    def spawn(self, coro: Coroutine[Any, Any, Any]) -> WorkflowTask:
        """Start the main task, in a context of its own: nothing of the host's leaks in."""
        self._main = main = WorkflowTask(coro, loop=self, name="main", context=Context(), scope=self.root)
        return main

    def spawn_as(self, coro: Coroutine[Any, Any, Any], name: str, context: Context, scope: Scope) -> None:
        """Start a task that no task of the workflow's makes, under a path of its own."""
        self._task(coro, name, context, scope)

    def keep(self, generator: AsyncGenerator[Any, Any]) -> None:
        """Keep an async generator until the run is let go."""
        self._all_kept().generator(generator)

    def next_number(self) -> int:
        """Return the number that the next task or future hashes by."""
        self.number += 1
        return self.number

    def scope(self) -> Scope:
        """Return the place of the task that is running. Raises ``WorkflowMisuse`` where there is none."""
        task = asyncio.current_task(self)
        if type(task) is WorkflowTask and not self.aside:
            return task.scope
        if self.aside:
            problem = _ASIDE
        elif task is None:
            problem = "this was called from a bare callback"
        else:
            problem = "this was called in a task made by hand, not by asyncio.create_task or a TaskGroup"
        raise WorkflowMisuse(f"{problem}; call it from a task of the workflow itself")

    def call_next(self, callback: Callable[[], object]) -> None:
        """Run a callback directly after the one that is running, before all that is scheduled."""
        self._ready.appendleft(Handle(callback, (), copy_context()))

    # What asyncio's tasks, futures, timeouts and locks call.

    def time(self) -> float:
        return self.now_us / 1_000_000

    def call_soon(  # type: ignore[override]  # a lighter handle than asyncio.Handle, with the same methods
        self, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> Handle:
        handle = Handle(callback, args, context if context is not None else copy_context())
        if self.in_turn and not self.aside:
            self._ready.append(handle)
        elif self.aside:
            raise WorkflowMisuse(f"{_ASIDE}; call it from a task of the workflow itself")
        elif not self.discarded:
            self._refuse_touch()
        return handle

    def call_later(  # type: ignore[override]  # see call_soon
        self, delay: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> Handle:
        return self.call_at(self.time() + delay, callback, *args, context=context)

    def call_at(  # type: ignore[override]  # see call_soon
        self, when: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> Handle:
        if when != when:
            raise ValueError("a timer cannot be due at NaN")  # sleep(nan) says so itself only on 3.13
        if when <= self.time() or self.discarded:
            return self.call_soon(callback, *args, context=context)
        if self.aside:
            raise WorkflowMisuse(f"{_ASIDE}; call it from a task of the workflow itself")
        context = context if context is not None else copy_context()
        handle = TimerHandle(when, callback, args, context, self.machine.timers)
        self.machine.timers.arm(handle)
        return handle

    def call_at_as(self, key: str, when: float, callback: Callable[..., object], *args: Any) -> Handle:
        """Call back at ``when``, by a timer that has a key of its own and counts for no task."""
        if when <= self.time():
            return self.call_soon(callback, *args, context=Context())
        handle = TimerHandle(when, callback, args, Context(), self.machine.timers, key)
        self.machine.timers.arm(handle)
        return handle

    def create_future(self) -> asyncio.Future[Any]:
        future = WorkflowFuture(loop=self)
        self.number = future.identity = self.number + 1
        return future

    def create_task(
        self, coro: Any, *, name: object = None, context: Context | None = None, **options: Any
    ) -> asyncio.Task[Any]:
        if self.discarded:
            if asyncio.iscoroutine(coro):
                coro.close()
            return cast("asyncio.Task[Any]", self.create_future())  # never done, whatever it is taken for
        if options.get("eager_start"):
            raise NotDeterministic("eager tasks", "leave eager_start out: Python 3.11 has none")
        if is_as_completed():
            if asyncio.iscoroutine(coro):
                coro.close()
            raise NotDeterministic(
                "asyncio.as_completed", "use continuum.as_completed: asyncio's goes through a set"
            )
        generator: CodeType | None = getattr(coro, "gi_code", None)
        if generator is not None and not generator.co_flags & CO_ITERABLE_COROUTINE:
            raise TypeError(f"a coroutine was expected, got {coro!r}")  # on 3.11 asyncio would take it
        if not asyncio.iscoroutine(coro):
            coro = _await(coro)
        if self.aside:
            self.scope()
        running = asyncio.current_task(self)
        parent = self.root if running is None else cast("WorkflowTask", running).scope
        scope = parent.task()
        return self._task(coro, str(name) if name is not None else scope.path[:-1], context, scope)

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        if not self.discarded and len(self.unhandled) < MAX_UNHANDLED:
            self.unhandled.append(context)

    get_debug: Any = staticmethod(bool)  # False without a Python call: every future and task asks

    def is_running(self) -> bool:
        return self.in_turn

    def is_closed(self) -> bool:
        return self.discarded

    def discard(self) -> None:
        """Let the run go: see ``discard.Kept``."""
        if self.discarded:
            return
        if self.in_turn:
            raise RuntimeError("a run cannot be let go in its own turn")
        self.discarded = self.stopped = True
        self._ready.clear()
        if self.unstarted:
            with warnings.catch_warnings():  # what a run that is let go has not awaited is nobody's mistake
                warnings.simplefilter("ignore", RuntimeWarning)
                self._all_kept().close(self)
        elif self._kept is not None or (self._main is not None and not self._main.done()):
            self._all_kept().close(self)
        self._main = self._kept = None
        self.unhandled.clear()
        if self.timers is not None:
            self.timers.forget()
        # The only references from here back to their owners: without them a run is freed at once, not by the
        # garbage collector. test_a_run_that_is_let_go_is_freed_without_the_garbage_collector
        del self.machine, self.timers

    def _refuse_touch(self) -> NoReturn:
        """Fail loudly on both sides: who touches gets the error, and this run's machine has lost a callback."""
        what, instead = (
            "an asyncio object that runs share",
            "make it inside the workflow, reach other runs by signals",
        )
        self.machine.decisions.fail(Forbidden(what, instead))
        raise WorkflowMisuse(f"an asyncio object belongs to one run, and was touched outside its turn; {instead}")

    def _task(
        self, coro: Coroutine[Any, Any, Any], name: str, context: Context | None, scope: Scope
    ) -> WorkflowTask:
        task = WorkflowTask(coro, loop=self, name=name, context=context, scope=scope)
        self._all_kept().task(task)
        return task

    def _all_kept(self) -> Kept:
        """Return what is to be closed when the run is let go, beginning with the main task."""
        kept = self._kept
        if kept is None:
            kept = self._kept = Kept()
            if self._main is not None:
                kept.task(self._main)
        return kept


class Sitting:
    """Turns that a host loop's thread takes one after the other: what they need is made ready once for all.

    A context manager, within one plain callback of the host loop, which is the running one between the turns.
    Raises ``RuntimeError`` inside a task of the host loop. A turn outside of one sits alone.
    """

    __slots__ = ("_hooks", "_host")

    def __enter__(self) -> None:
        self._host = host = asyncio._get_running_loop()
        if host is not None and asyncio.current_task(host) is not None:
            raise RuntimeError("a turn runs from a plain callback of the host loop (call_soon), not inside a task")
        self._hooks = sys.get_asyncgen_hooks()
        sys.set_asyncgen_hooks(self._begun, leave_generator)
        pinned.enter()
        if host is not None:  # a loop runs in one thread, so nobody else finds this
            _SITTINGS[host] = self

    def __exit__(self, *_: object) -> None:
        _SITTINGS.pop(self._host, None)
        pinned.leave()
        sys.set_asyncgen_hooks(*self._hooks)

    def _begun(self, generator: AsyncGenerator[Any, Any]) -> None:
        """Let the run whose turn it is keep an async generator; one that is begun between turns is the host's."""
        loop = asyncio._get_running_loop()
        if type(loop) is WorkflowLoop:
            loop.keep(generator)
        elif self._hooks.firstiter is not None:
            self._hooks.firstiter(generator)


_SITTINGS: dict[asyncio.AbstractEventLoop | None, Sitting] = {}
refuse_on(WorkflowLoop)  # type: ignore[type-abstract]  # what is abstract is refused


def running_workflow() -> WorkflowLoop | None:
    """Return the loop of the workflow whose code runs on this thread, or None outside of one."""
    loop = asyncio._get_running_loop()
    return loop if type(loop) is WorkflowLoop else None


def is_turn() -> bool:
    """Whether a workflow has its turn on this thread; clean-up of one that is let go is none."""
    loop = asyncio._get_running_loop()
    return type(loop) is WorkflowLoop and loop.in_turn


def park(error: NotDeterministic) -> NoReturn:
    """Make a fault of what the watch refuses: see ``Forbidden``."""
    loop = cast("WorkflowLoop", asyncio._get_running_loop())
    loop.machine.decisions.fail(Forbidden(error.what, error.instead, error.where))
    raise Unwind


WATCH = Watch(is_turn, park)


async def _await(awaitable: Awaitable[T]) -> T:
    return await awaitable
