"""The parts of asyncio whose behaviour changed between the Pythons we support, in one form.

A journal recorded on one Python must replay on every other, so during a turn of a workflow these functions
do what they do on 3.13. ``enter()`` swaps their code for ours, ``leave()`` swaps it back: the functions stay
the same objects, so ``from asyncio import wait_for`` is caught too, and outside a turn nothing is changed. A
call from another loop (another thread's, meanwhile) is handed to the original code.

A workflow loop has the class attribute ``is_workflow_loop = True`` and two methods: ``next_number()`` gives
the number a new future is hashed by, ``call_next(callback)`` runs a callback directly after the one that is
running, before all that is scheduled already. Its tasks are ``Task`` of this module.

From 3.13 on only the hash of ``gather``'s future is ours. The private attributes of asyncio's classes are
read in this module and nowhere else, hence ``Any``.
"""

from __future__ import annotations

import asyncio
import sys
from asyncio import tasks, timeouts
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from types import CodeType, FunctionType
from typing import Any, TypeVar, cast

__all__ = ["Task", "enter", "leave"]

_T = TypeVar("_T")
_tasks_namespace = tasks.__dict__


def _in_workflow(loop: object) -> bool:
    return getattr(loop, "is_workflow_loop", False)


# The two swaps. No lock: the interpreter lets another thread or a signal handler in at a call, at the entry
# of a function and at a backward jump. Past their entry there is none in these two, hence lines and no loop.
# ``test_turns_of_many_threads_are_all_pinned``.
_turns = 0
_code_differs = sys.version_info < (3, 13)


def enter() -> None:
    """Pin asyncio for a turn. Turns may nest, and overlap in threads: each calls ``leave`` at its end."""
    global _turns
    _turns += 1
    if _turns == 1:
        _tasks_namespace["_GatheringFuture"] = _NumberedGatheringFuture
        if _code_differs:
            _wait_for.function.__code__ = _wait_for.ours
            _gather.function.__code__ = _gather.ours
            _group_exit.function.__code__ = _group_exit.ours
            _group_create_task.function.__code__ = _group_create_task.ours
            _timeout_enter.function.__code__ = _timeout_enter.ours
            _timeout_exit.function.__code__ = _timeout_exit.ours
            _semaphore_acquire.function.__code__ = _semaphore_acquire.ours
            _condition_wait.function.__code__ = _condition_wait.ours


def leave() -> None:
    """End a turn, in ``finally``. The last one to end puts asyncio back as it was."""
    global _turns
    _turns -= 1
    if _turns == 0:
        _tasks_namespace["_GatheringFuture"] = _GatheringFuture
        if _code_differs:
            _wait_for.function.__code__ = _wait_for.original
            _gather.function.__code__ = _gather.original
            _group_exit.function.__code__ = _group_exit.original
            _group_create_task.function.__code__ = _group_create_task.original
            _timeout_enter.function.__code__ = _timeout_enter.original
            _timeout_exit.function.__code__ = _timeout_exit.original
            _semaphore_acquire.function.__code__ = _semaphore_acquire.original
            _condition_wait.function.__code__ = _condition_wait.original


if sys.version_info >= (3, 13):
    Task = asyncio.Task
else:

    class Task(asyncio.Task[_T]):
        """A task whose ``uncancel`` takes back a cancellation that was not delivered yet.

        A task that cancels itself is interrupted at its next ``await``; since 3.13 not if ``uncancel``
        brings the count to zero first, which a ``timeout`` around a group with failing children does. The
        mark is in C and cannot be cleared: so it is kept here, and delivered when that step ends.
        """

        _owed = False  # asked to cancel itself during this step
        _held = 0  # requests counted here and not in the C object
        _cancel_message: Any
        _fut_waiter: Any

        def cancel(self, msg: Any | None = None) -> bool:
            if self._fut_waiter is not None or asyncio.current_task(self.get_loop()) is not self:
                return super().cancel(msg)
            if not self._owed:
                cast("Any", self.get_loop()).call_next(self._deliver)
            self._owed = True
            self._cancel_message = msg
            self._held += 1
            return True

        def cancelling(self) -> int:
            return super().cancelling() + self._held

        def uncancel(self) -> int:
            if self._held:
                self._held -= 1
            else:
                super().uncancel()
            remaining = self.cancelling()
            if not remaining:
                self._owed = False
            return remaining

        def _deliver(self) -> None:
            owed, self._owed = self._owed, False
            if owed and not self.done():
                super().cancel(self._cancel_message)
                if self._held:
                    self._held -= 1
                else:
                    super().uncancel()
            elif owed and not self.cancelled() and self._exception is None:
                # It returned without another await: on 3.13 it ends cancelled. Its callbacks are scheduled
                # and did not run yet, so it is made anew as a future, which is then cancelled.
                message = self._cancel_message
                asyncio.Future[_T].__init__(self, loop=self.get_loop())
                asyncio.Future[_T].cancel(self, message)


_GatheringFuture: Any = _tasks_namespace["_GatheringFuture"]


class _NumberedGatheringFuture(_GatheringFuture):  # type: ignore[misc]  # asyncio's class has no type
    """What ``gather`` returns, hashed by number so that a set of them has one order everywhere."""

    def __init__(self, children: list[asyncio.Future[Any]], *, loop: Any) -> None:
        _GatheringFuture.__init__(self, children, loop=loop)
        self._number: int = loop.next_number() if _in_workflow(loop) else object.__hash__(self)

    def __hash__(self) -> int:
        return self._number


# The functions. Each is 3.13's behaviour, said anew.


async def _wait_for_3_13(fut: Any, timeout: float | None) -> Any:
    """Wait in the caller's own task, under ``timeout``; before 3.12 a coroutine became a task."""
    if timeout is not None and timeout <= 0:
        return await _wait_for.unpinned(fut, timeout)
    async with asyncio.timeout(timeout):
        return await fut


def _gather_3_13(*coros_or_futures: Any, return_exceptions: bool = False) -> Any:
    """Gather; what is done already is counted at once, before 3.12 by a callback a step later."""
    if not coros_or_futures:
        return _gather.unpinned()
    outer: Any = None
    finished = 0

    def count(future: Any) -> None:
        nonlocal finished
        finished += 1
        if outer is None or outer.done():
            if not future.cancelled():
                future.exception()  # retrieved, so that it is not reported as lost
        elif not return_exceptions and future.cancelled():
            outer.set_exception(future._make_cancelled_error())
        elif not return_exceptions and (error := future.exception()) is not None:
            outer.set_exception(error)
        elif finished == len(futures):
            if outer._cancel_requested:
                outer.set_exception(children[-1]._make_cancelled_error())
            else:
                outer.set_result([_result_or_error(child) for child in children])

    futures: dict[Any, Any] = {}
    done: list[Any] = []
    loop: Any = None
    for awaitable in dict.fromkeys(coros_or_futures):
        future: Any = asyncio.ensure_future(awaitable, loop=loop)
        loop = loop or future.get_loop()
        if future is not awaitable:
            future._log_destroy_pending = False  # nobody else holds it
        futures[awaitable] = future
        if future.done():
            done.append(future)
        else:
            future.add_done_callback(count)
    children = [futures[awaitable] for awaitable in coros_or_futures]
    outer = _NumberedGatheringFuture(children, loop=loop)
    for future in done:
        count(future)
    return outer


def _result_or_error(future: Any) -> Any:
    if future.cancelled():
        return asyncio.CancelledError("" if future._cancel_message is None else future._cancel_message)
    error = future.exception()
    return future.result() if error is None else error


async def _group_exit_3_13(group: Any, et: object, exc: BaseException | None, tb: object) -> None:
    """Leave a task group; a cancellation from outside stays pending when the children fail."""
    group._exiting = True
    if isinstance(exc, (SystemExit, KeyboardInterrupt)) and group._base_error is None:
        group._base_error = exc
    cancelled = exc if isinstance(exc, asyncio.CancelledError) else None
    if exc is not None and not group._aborting:
        group._abort()
    while group._tasks:
        if group._on_completed_fut is None:
            group._on_completed_fut = group._loop.create_future()
        try:
            await group._on_completed_fut
        except asyncio.CancelledError as error:
            if not group._aborting:
                cancelled = error
                group._abort()
        group._on_completed_fut = None
    if group._base_error is not None:
        raise group._base_error
    parent = group._parent_task
    # Taken back only here: before 3.13 at the start, and what cancelled the parent meanwhile was lost.
    if group._parent_cancel_requested and parent.uncancel() == 0:
        cancelled = None
    if cancelled is not None and not group._errors:
        raise cancelled
    if exc is not None and not isinstance(exc, asyncio.CancelledError):
        group._errors.append(exc)
    if group._errors:
        if parent.cancelling():
            parent.uncancel()
            parent.cancel()
        raise BaseExceptionGroup("unhandled errors in a TaskGroup", group._errors) from None


def _group_create_task_3_13(group: Any, coro: Any, *, name: str | None = None, context: Any = None) -> Any:
    """Start a task of a group; a coroutine it refuses is closed."""
    if not group._entered or group._aborting or (group._exiting and not group._tasks):
        coro.close()
    return _group_create_task.unpinned(group, coro, name=name, context=context)


async def _timeout_enter_3_13(timeout: Any) -> Any:
    """Enter a timeout, once, and remember the cancellations that were there before it (not so in 3.11.2)."""
    if timeout._state is not _TimeoutState.CREATED:
        raise RuntimeError("Timeout has already been entered")
    await _timeout_enter.unpinned(timeout)
    timeout._cancelling = timeout._task.cancelling()
    return timeout


async def _timeout_exit_3_13(timeout: Any, et: object, exc: BaseException | None, tb: object) -> None:
    """Leave a timeout; when it expired, a subclass of CancelledError too becomes TimeoutError."""
    if timeout._timeout_handler is not None:
        timeout._timeout_handler.cancel()
        timeout._timeout_handler = None
    if timeout._state is _TimeoutState.ENTERED:
        timeout._state = _TimeoutState.EXITED
        return
    assert timeout._state is _TimeoutState.EXPIRING
    timeout._state = _TimeoutState.EXPIRED
    if timeout._task.uncancel() > timeout._cancelling:
        return
    if isinstance(exc, asyncio.CancelledError):
        raise TimeoutError from exc
    _name_timeout_as_cause(exc)
    if isinstance(exc, ExceptionGroup):
        for error in cast("ExceptionGroup[Exception]", exc).exceptions:
            _name_timeout_as_cause(error)


def _name_timeout_as_cause(error: BaseException | None) -> None:
    """Put a TimeoutError between an error and the cancellation it was raised in."""
    while error is not None and (context := error.__context__) is not None:
        if isinstance(context, asyncio.CancelledError):
            timed_out = TimeoutError()
            timed_out.__context__ = timed_out.__cause__ = context
            error.__context__ = timed_out
            return
        error = context


async def _semaphore_acquire_3_13(semaphore: Any) -> bool:
    """Acquire a semaphore; whoever leaves the queue wakes as many as there are places."""
    if not semaphore.locked():
        semaphore._value -= 1
        return True
    if semaphore._waiters is None:
        semaphore._waiters = deque[Any]()
    waiters: deque[Any] = semaphore._waiters
    turn = semaphore._get_loop().create_future()
    waiters.append(turn)
    try:
        await turn
    except asyncio.CancelledError:
        if turn.done() and not turn.cancelled():
            semaphore._value += 1  # it was given to us and we do not take it
        raise
    finally:
        waiters.remove(turn)
        for waiter in waiters:
            if semaphore._value > 0 and not waiter.done():
                semaphore._value -= 1
                waiter.set_result(True)
    return True


async def _condition_wait_3_13(condition: Any) -> bool:
    """Wait for a condition; one that is interrupted passes its notification on to another."""
    if not condition.locked():
        raise RuntimeError("cannot wait on un-acquired lock")
    notified = condition._get_loop().create_future()
    condition.release()
    condition._waiters.append(notified)
    try:
        try:
            await notified
        finally:
            condition._waiters.remove(notified)
            await _acquire_whatever_comes(condition)
    except BaseException:
        for waiter in condition._waiters:
            if not waiter.done():
                waiter.set_result(False)
                break
        raise
    return True


async def _acquire_whatever_comes(condition: Any) -> None:
    interruption = None
    while True:
        try:
            await condition.acquire()
            break
        except asyncio.CancelledError as error:
            interruption = error
    if interruption is not None:
        raise interruption


# What is swapped in. Code brings neither globals nor free variables along: it is a few words around a
# constant, and the constant is what they call.


def _function(*args: Any, **options: Any) -> Any:
    target: Any = "target"
    return target(*args, **options)


async def _method(*args: Any) -> Any:
    target: Any = "target"
    return await target(*args)


async def _timed(fut: Any, timeout: Any) -> Any:
    target: Any = "target"
    return await target(fut, timeout)


@dataclass(frozen=True, slots=True)
class _Pin:
    function: Any
    original: CodeType
    ours: CodeType
    unpinned: Callable[..., Any]  # the original, callable during a turn


def _pin(function: Any, words: Any, behaviour: Callable[..., Any]) -> _Pin:
    original: CodeType = function.__code__
    unpinned: Any = FunctionType(original, function.__globals__, function.__name__)
    unpinned.__kwdefaults__ = function.__kwdefaults__
    assert not function.__defaults__, "code without these parameters may not take over their defaults"

    def target(*args: Any, **options: Any) -> Any:
        return (behaviour if _in_workflow(asyncio._get_running_loop()) else unpinned)(*args, **options)

    code: CodeType = words.__code__
    constants = tuple(target if constant == "target" else constant for constant in code.co_consts)
    ours = code.replace(co_consts=constants, co_name=original.co_name, co_qualname=original.co_qualname)
    return _Pin(function, original, ours, unpinned)


_TimeoutState: Any = vars(timeouts)["_State"]
_wait_for = _pin(tasks.wait_for, _timed, _wait_for_3_13)
_gather = _pin(tasks.gather, _function, _gather_3_13)
_group_exit = _pin(asyncio.TaskGroup.__aexit__, _method, _group_exit_3_13)
_group_create_task = _pin(asyncio.TaskGroup.create_task, _function, _group_create_task_3_13)
_timeout_enter = _pin(asyncio.Timeout.__aenter__, _method, _timeout_enter_3_13)
_timeout_exit = _pin(asyncio.Timeout.__aexit__, _method, _timeout_exit_3_13)
_semaphore_acquire = _pin(asyncio.Semaphore.acquire, _method, _semaphore_acquire_3_13)
_condition_wait = _pin(asyncio.Condition.wait, _method, _condition_wait_3_13)
