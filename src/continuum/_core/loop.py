"""The event loop of one run: no selector, no clock, no thread.

Workflow code is ordinary asyncio code: ``gather``, ``TaskGroup``, ``timeout``, ``Queue`` work because this loop
implements the few methods they call. The rules it obeys:

* Callbacks run in the order they were scheduled, only inside a turn, and a turn is bounded.
* Time stands still in a turn; a timer is handed to ``timers``, never waited for.
* Tasks and futures hash by ``crc32(run id) + number``, so that the sets asyncio keeps iterate in one order in
  every process. (The bare number would make asyncio's global weak set of tasks quadratic over many runs.)
* A turn runs from a plain callback of the host loop, never inside a host task: 3.14 keeps one current task per
  thread.
* A discarded run's clean-up runs under ``DeadLoop`` and reaches nothing.
"""

from __future__ import annotations

import asyncio
import sys
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine
from contextvars import Context, copy_context
from types import CodeType
from typing import TYPE_CHECKING, Any, NoReturn, Protocol, TypeVar, cast
from zlib import crc32

from continuum._core import pinned
from continuum._core.faults import Overrun, Unwind, source_line
from continuum._core.guards import Watch
from continuum._core.keys import Scope
from continuum.errors import NotDeterministic, WorkflowMisuse

if TYPE_CHECKING:
    from continuum._core.machine import Machine

T = TypeVar("T")

MAX_CALLBACKS_PER_TURN = 1_000_000  # gather over 100,000 refs takes some 400,000


class WorkflowTask(asyncio.Task[Any]):
    """A task that hashes by its number and knows its place in the run."""

    __slots__ = ("identity", "scope")

    def __init__(self, coro: Any, *, loop: WorkflowLoop, name: str, context: Context | None, scope: Scope) -> None:
        self.identity = loop.next_number()  # asked for by the weak set that asyncio puts every task in
        self.scope = scope
        super().__init__(coro, loop=loop, name=name, context=context)

    def __hash__(self) -> int:
        return self.identity


class WorkflowFuture(asyncio.Future[Any]):
    """A future that hashes by its number, which the loop sets: an ``__init__`` would be run by every await."""

    __slots__ = ("identity",)

    identity: int

    def __hash__(self) -> int:
        return self.identity


class Handle:
    """A callback that waits for its place in the turn."""

    __slots__ = ("_args", "_callback", "_cancelled", "_context")

    def __init__(self, callback: Callable[..., object], args: tuple[Any, ...], context: Context) -> None:
        self._callback = callback
        self._args = args
        self._context = context
        self._cancelled = False

    def cancel(self) -> None:
        self._cancelled = True

    def cancelled(self) -> bool:
        return self._cancelled

    def run(self) -> None:
        self._context.run(self._callback, *self._args)


class TimerHandle(Handle):
    """A callback that waits for its time; ``key`` names the timer while it is pending."""

    __slots__ = ("_timers", "_when", "key")

    def __init__(
        self, when: float, callback: Callable[..., object], args: tuple[Any, ...], context: Context, timers: Timers
    ) -> None:
        super().__init__(callback, args, context)
        self._when = when
        self._timers = timers
        self.key = ""

    def when(self) -> float:
        return self._when

    def cancel(self) -> None:
        if not self._cancelled:
            self._cancelled = True
            self._timers.disarm(self)


class Timers(Protocol):
    """Who keeps a run's timers."""

    def arm(self, handle: TimerHandle) -> None: ...

    def disarm(self, handle: TimerHandle) -> None: ...


class WorkflowLoop(asyncio.AbstractEventLoop):
    """The loop of one run. Its owner calls ``enter``, then ``drain`` after each event, then ``leave``."""

    is_workflow_loop = True

    def __init__(self, machine: Machine, run_id: str, timers: Timers) -> None:
        self.machine = machine
        self.now_us = 0
        self.in_turn = False
        self.stopped = False
        self.discarded = False
        self.exit: SystemExit | None = None
        self.unhandled: list[dict[str, Any]] = []
        self.root = Scope()
        self._timers = timers
        self._ready: deque[Handle] = deque()
        self._number = crc32(run_id.encode("utf-8", "surrogatepass"))
        self._tasks: list[WorkflowTask] = []  # asyncio keeps only weak references
        self._tasks_limit = 8
        self._generators: list[AsyncGenerator[Any, Any]] = []
        self._host: asyncio.AbstractEventLoop | None = None
        self._host_hooks: Any = None

    # The turn.

    def enter(self) -> None:
        """Make this the running loop of the thread. Raises ``RuntimeError`` inside a task of the host loop."""
        host = asyncio._get_running_loop()
        if host is not None and asyncio.current_task(host) is not None:
            raise RuntimeError("a turn runs from a plain callback of the host loop (call_soon), not inside a task")
        self._host = host
        self._host_hooks = sys.get_asyncgen_hooks()
        sys.set_asyncgen_hooks(firstiter=self._keep_generator, finalizer=_leave_generator)
        pinned.enter()
        asyncio._set_running_loop(self)
        self.in_turn = True

    def leave(self) -> None:
        """Give the thread back to the host loop."""
        self.in_turn = False
        asyncio._set_running_loop(self._host)
        pinned.leave()
        sys.set_asyncgen_hooks(*self._host_hooks)
        self._host = self._host_hooks = None

    def drain(self) -> Overrun | None:
        """Run every ready callback and those they make ready; return an ``Overrun`` if that does not end."""
        ready = self._ready
        budget = MAX_CALLBACKS_PER_TURN
        while ready and not self.stopped:
            handle = ready.popleft()
            if handle._cancelled:
                continue
            budget -= 1
            if budget < 0:
                return Overrun(MAX_CALLBACKS_PER_TURN, source_line())
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
                self.unhandled.append({"message": "exception in a callback", "exception": error})
        return None

    def fire(self, handle: TimerHandle) -> None:
        """Make a timer's callback ready."""
        self._ready.append(handle)

    def spawn(self, coro: Coroutine[Any, Any, Any]) -> WorkflowTask:
        """Start the main task, in a context of its own: nothing of the host's leaks in."""
        return self._task(coro, "main", Context(), self.root)

    def next_number(self) -> int:
        """Return the number that the next task or future hashes by."""
        self._number += 1
        return self._number

    def scope(self) -> Scope:
        """Return the place of the task that is running. Raises ``WorkflowMisuse`` in a bare callback."""
        task = asyncio.current_task(self)
        if task is None:
            raise WorkflowMisuse("this was called from a bare callback; call it from a task of the workflow")
        return task.scope  # type: ignore[no-any-return,attr-defined]  # all tasks of this loop are WorkflowTasks

    def pending_tasks(self) -> list[WorkflowTask]:
        """Return the tasks that have not ended, oldest first."""
        return [task for task in self._tasks if not task.done()]

    # What asyncio's tasks, futures, timeouts and locks call.

    def time(self) -> float:
        return self.now_us / 1_000_000

    def call_soon(  # type: ignore[override]  # a lighter handle than asyncio.Handle, with the same methods
        self, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> Handle:
        handle = Handle(callback, args, context if context is not None else copy_context())
        if self.in_turn:
            self._ready.append(handle)
        elif not self.discarded:
            raise WorkflowMisuse(
                "an asyncio object of a workflow was touched from outside its turn; an Event, Queue or Future "
                "belongs to one run: make it inside the workflow, and reach other runs by signals"
            )
        return handle

    def call_later(  # type: ignore[override]  # see call_soon
        self, delay: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> Handle:
        return self.call_at(self.time() + delay, callback, *args, context=context)

    def call_at(  # type: ignore[override]  # see call_soon
        self, when: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> Handle:
        if when <= self.time():
            return self.call_soon(callback, *args, context=context)
        context = context if context is not None else copy_context()
        handle = TimerHandle(when, callback, args, context, self._timers)
        self._timers.arm(handle)
        return handle

    def create_future(self) -> asyncio.Future[Any]:
        if self.discarded:
            raise Unwind
        future = WorkflowFuture(loop=self)
        self._number = future.identity = self._number + 1
        return future

    def create_task(  # type: ignore[override]  # also takes any awaitable, such as a ChildRef
        self, coro: Any, *, name: object = None, context: Context | None = None, **options: Any
    ) -> asyncio.Task[Any]:
        if self.discarded:
            _refuse_task(coro)
        if options.get("eager_start"):
            raise NotDeterministic("eager tasks", "leave eager_start out: Python 3.11 has none")
        if _is_called_by(_AS_COMPLETED, depth=5):
            if asyncio.iscoroutine(coro):
                coro.close()
            raise NotDeterministic("asyncio.as_completed", "use continuum.as_completed: asyncio's goes through a set")
        if not asyncio.iscoroutine(coro):
            coro = _await(coro)
        running = asyncio.current_task(self)
        parent = self.root if running is None else cast("WorkflowTask", running).scope
        scope = parent.task()
        return self._task(coro, str(name) if name is not None else scope.path[:-1], context, scope)

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        if not self.discarded:
            self.unhandled.append(context)

    get_debug = staticmethod(bool)  # False without a Python call: every future and task asks

    def is_running(self) -> bool:
        return self.in_turn

    def is_closed(self) -> bool:
        return self.discarded

    # Letting go.

    def discard(self) -> None:
        """Close every coroutine under a dead loop, newest first: their clean-up reaches nothing."""
        if self.discarded:
            return
        self.discarded = self.stopped = True
        self._ready.clear()
        host = asyncio._get_running_loop()
        asyncio._set_running_loop(DEAD_LOOP)
        try:
            for task in reversed(self._tasks):
                task._log_destroy_pending = False  # type: ignore[attr-defined]  # else asyncio logs each of them
                if not task.done():
                    _close(task.get_coro())
            for generator in reversed(self._generators):
                _close(generator.aclose())
        finally:
            asyncio._set_running_loop(host)
        self._tasks.clear()
        self._generators.clear()
        self.unhandled.clear()

    def _task(
        self, coro: Coroutine[Any, Any, Any], name: str, context: Context | None, scope: Scope
    ) -> WorkflowTask:
        task = WorkflowTask(coro, loop=self, name=name, context=context, scope=scope)
        if len(self._tasks) >= self._tasks_limit:
            self._tasks = self.pending_tasks()
            self._tasks_limit = max(8, 2 * len(self._tasks))
        self._tasks.append(task)
        return task

    def _keep_generator(self, generator: AsyncGenerator[Any, Any]) -> None:
        # Held until the run is let go: closed by the garbage collector, its clean-up would run at no fixed time.
        if len(self._generators) >= 64:
            self._generators = [kept for kept in self._generators if getattr(kept, "ag_frame", None) is not None]
        self._generators.append(generator)


class DeadLoop(asyncio.AbstractEventLoop):
    """The running loop while a run is let go: whatever is asked of it unwinds."""

    def __getattribute__(self, name: str) -> Any:
        if name == "create_task":
            return _refuse_task  # takes the coroutine along, else Python warns that it was never awaited
        raise Unwind


def _refuse_task(coro: Any, **options: Any) -> NoReturn:
    if asyncio.iscoroutine(coro):
        coro.close()
    raise Unwind


DEAD_LOOP = DeadLoop()


def running_workflow() -> WorkflowLoop | None:
    """Return the loop of the workflow whose turn it is on this thread, or None outside of one."""
    loop = asyncio._get_running_loop()
    if type(loop) is WorkflowLoop:
        return loop
    if loop is DEAD_LOOP:
        raise Unwind
    return None


def is_turn() -> bool:
    """Whether workflow code is running on this thread."""
    return type(asyncio._get_running_loop()) is WorkflowLoop


WATCH = Watch(is_turn)


async def _await(awaitable: Awaitable[T]) -> T:
    return await awaitable


def _leave_generator(generator: AsyncGenerator[Any, Any]) -> None:
    """A generator that was kept is closed by ``discard``; there is nothing to do when it goes."""


def _close(coro: Any) -> None:
    """Close a coroutine for good, innermost await first.

    From the outside in, an inner one that goes on awaiting in its clean-up would be left to the garbage
    collector, which closes it again in somebody else's turn. One that does so is closed again, a few times.
    """
    chain = [coro]
    while asyncio.iscoroutine(awaited := getattr(chain[-1], "cr_await", None)):
        chain.append(awaited)
    for link in reversed(chain):
        for _ in range(16):
            try:
                link.close()
                break
            except RuntimeError:  # it ignored GeneratorExit
                continue
            except BaseException:  # noqa: BLE001 - clean-up of a run that no longer exists may raise anything
                break


def _code_objects(function: Any) -> set[CodeType]:
    """Return the code of ``function`` or of a class's methods, with all that is nested in it."""
    found: set[CodeType] = set()
    members = vars(function).values() if isinstance(function, type) else [function]
    todo = [member.__code__ for member in members if hasattr(member, "__code__")]
    while todo:
        code = todo.pop()
        found.add(code)
        todo += [const for const in code.co_consts if isinstance(const, CodeType)]
    return found


_ENSURE_FUTURE = _code_objects(asyncio.ensure_future) | _code_objects(getattr(asyncio.tasks, "_ensure_future", None))
_AS_COMPLETED = _code_objects(asyncio.as_completed) | _code_objects(
    getattr(asyncio.tasks, "_AsCompletedIterator", None)
)


def _is_called_by(codes: set[CodeType], depth: int) -> bool:
    """Say whether the caller's caller comes by way of ``ensure_future`` from one of ``codes``."""
    frame = sys._getframe(2)
    if frame.f_code not in _ENSURE_FUTURE:
        return False
    for _ in range(depth):
        if frame.f_back is None:
            return False
        frame = frame.f_back
        if frame.f_code in codes:
            return True
    return False


def _refuse(name: str, what: str, instead: str) -> None:
    def refused(self: WorkflowLoop, *args: Any, **options: Any) -> NoReturn:
        for arg in args:
            if asyncio.iscoroutine(arg):
                arg.close()
        raise NotDeterministic(what, instead)

    setattr(WorkflowLoop, name, refused)


_MOVE = "move it to an activity"
for _name, _what in {
    "run_in_executor": "threads",
    "set_default_executor": "threads",
    "shutdown_default_executor": "threads",
    "call_soon_threadsafe": "another thread's callbacks",
    "getaddrinfo": "the network",
    "getnameinfo": "the network",
    "create_connection": "sockets",
    "create_server": "sockets",
    "create_unix_connection": "sockets",
    "create_unix_server": "sockets",
    "create_datagram_endpoint": "sockets",
    "connect_accepted_socket": "sockets",
    "start_tls": "sockets",
    "sendfile": "sockets",
    "sock_recv": "sockets",
    "sock_recv_into": "sockets",
    "sock_recvfrom": "sockets",
    "sock_recvfrom_into": "sockets",
    "sock_sendall": "sockets",
    "sock_sendto": "sockets",
    "sock_connect": "sockets",
    "sock_accept": "sockets",
    "sock_sendfile": "sockets",
    "add_reader": "file descriptors",
    "remove_reader": "file descriptors",
    "add_writer": "file descriptors",
    "remove_writer": "file descriptors",
    "connect_read_pipe": "pipes",
    "connect_write_pipe": "pipes",
    "subprocess_exec": "subprocesses",
    "subprocess_shell": "subprocesses",
    "add_signal_handler": "operating system signals",
    "remove_signal_handler": "operating system signals",
}.items():
    _refuse(_name, _what, "send the run a signal" if _name == "call_soon_threadsafe" else _MOVE)
for _name in ("run_forever", "run_until_complete", "stop", "close", "shutdown_asyncgens"):
    _refuse(_name, f"loop.{_name}()", "the engine runs the loop; await what you need")
for _name in ("set_task_factory", "set_exception_handler", "set_debug"):
    _refuse(_name, f"loop.{_name}()", "leave the loop as it is")
