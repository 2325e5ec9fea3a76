"""One attempt at an activity: what it holds, how its function is called, and what its failure means.

The rule: whatever an activity raises ends in ``Attempt.error``, on the loop as in a thread, also ``SystemExit``
and ``KeyboardInterrupt``: an activity fails, a worker does not end.
"""

from __future__ import annotations

import asyncio
import inspect
from asyncio import CancelledError
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import replace
from types import CoroutineType
from typing import Any

from continuum._core.commands import RunActivity
from continuum._core.failure import capture
from continuum.activity import Activity
from continuum.context import enter_activity
from continuum.errors import Failure

NOBODY: tuple[str, int, str | None] = ("", 1, None)  # of an owner that is no run


class Lane:
    """The slots of one kind of activity, and the attempts that wait for one, first come first served."""

    __slots__ = ("free", "size", "threaded", "waiting")

    def __init__(self, size: int, *, threaded: bool) -> None:
        self.size = size
        self.threaded = threaded
        self.free = 0  # until the service runs
        self.waiting: OrderedDict[Attempt, None] = OrderedDict()  # a cancelled one leaves the middle in O(1)


class Attempt:
    """An attempt from being asked for to its end. Each retry is an ``Attempt`` of its own.

    ``bound`` is how many seconds it may take, ``deadline`` when all attempts must have ended, in the host loop's
    time. ``before`` is how the attempt before this one failed. ``abandoned``: nobody hears of it any more.
    """

    # What most attempts never have is the class's until one has it: making an attempt is part of every step.
    deadline: float | None = None
    bound: float | None = None
    began = 0.0
    before: Failure | None = None
    timer: asyncio.Handle | None = None  # its wait, its bound or its grace: one at a time
    task: asyncio.Task[None] | None = None
    result: bytes | None = None
    error: BaseException | None = None
    expired = ""  # which bound it has passed, in words
    overdue = False  # whether the bound that comes first is that of all attempts
    final = False  # whether what fails now would fail again
    holds = False  # a slot
    entered = False  # its task has taken its first step
    abandoned = False
    stopped = False  # it was told to stop

    def __init__(
        self, owner: object, request: RunActivity, activity: Activity[Any, Any], number: int, lane: Lane
    ) -> None:
        self.owner = owner
        # As it is now: an attempt may outlive its generation, and then it is still that one's.
        self.about: tuple[str, int, str | None] = getattr(owner, "about", NOBODY)
        self.request = request
        self.activity = activity
        self.number = number
        self.lane = lane

    def next(self, failure: Failure) -> Attempt:
        """Return the attempt that comes after this one failed."""
        again = Attempt(self.owner, self.request, self.activity, self.number + 1, self.lane)
        again.bound = self.bound
        again.deadline = self.deadline
        again.before = failure
        return again

    def disarm(self) -> None:
        """Cancel the timer, if one is set."""
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None

    def __str__(self) -> str:
        run_id = getattr(self.owner, "run_id", None)
        name = f"activity {self.request.name!r} ({self.request.key})"
        return f"attempt {self.number} of {name}" + (f" of run {run_id!r}" if run_id else "")


def is_async(activity: Activity[Any, Any]) -> bool:
    """Say whether the activity's function is ``async``: also behind ``functools.partial`` and in ``__call__``."""
    function: Any = activity.function
    call: Any = getattr(function, "__call__", None)  # noqa: B004 - of what kind it is, not whether it is there
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(call)


async def call_on_loop(attempt: Attempt, ended: Callable[[Attempt], None]) -> None:
    """Call the activity's function in the running task, up to its encoded result; then call ``ended``."""
    attempt.entered = True
    try:
        value = _call(attempt)
        if value.__class__ is CoroutineType or inspect.isawaitable(value):
            value = await value
        attempt.final = True
        attempt.result = attempt.activity.result.encode(value)
    except BaseException as error:
        if _is_collected(attempt, error):
            raise
        attempt.error = error
    ended(attempt)


def call_in_thread(attempt: Attempt) -> Awaitable[Any] | None:
    """Call the activity's function in this thread; return what it returned if that must be awaited."""
    try:
        value = _call(attempt)
        if inspect.isawaitable(value):
            return value
        _encode(attempt, value)
    except BaseException as error:  # noqa: BLE001 - see the module's rule
        attempt.error = error
    return None


async def await_on_loop(attempt: Attempt, awaitable: Awaitable[Any], ended: Callable[[Attempt], None]) -> None:
    """Await what a function that is not ``async`` has returned, up to the encoded result; then call ``ended``."""
    attempt.entered = True
    try:
        _encode(attempt, await awaitable)
    except BaseException as error:
        if _is_collected(attempt, error):
            raise
        attempt.error = error
    ended(attempt)


def _is_collected(attempt: Attempt, error: BaseException) -> bool:
    """Say whether it is the garbage collector that ends this: the loop is gone. An activity may raise the same."""
    if not isinstance(error, GeneratorExit):
        return False
    loop = asyncio._get_running_loop()
    return loop is None or asyncio.current_task(loop) is not attempt.task


def _call(attempt: Attempt) -> Any:
    activity = attempt.activity
    enter_activity((attempt.about, attempt.request, attempt.number))
    attempt.final = True
    arguments = activity.arguments.decode(attempt.request.input)
    attempt.final = False
    parameters = activity.parameters
    if parameters.by_name:
        return activity.function(**arguments)
    return parameters.call(activity.function, arguments)


def _encode(attempt: Attempt, value: Any) -> None:
    attempt.final = True
    attempt.result = attempt.activity.result.encode(value)


def failure_of(attempt: Attempt) -> tuple[Failure, tuple[str, ...], bool]:
    """Return how an attempt failed, the names of the error's base classes, and whether that is final.

    Takes the error out of the attempt.
    """
    error, attempt.error = attempt.error, None  # its traceback holds frames that hold the attempt
    failure = None if error is None else _captured(error)
    if attempt.expired:
        if failure is None or isinstance(error, CancelledError):
            where, cause = failure.traceback if failure is not None else "", attempt.before
        else:
            where, cause = "", failure  # what its clean-up raised
        failure = replace(timed_out(attempt.expired, cause), traceback=where)
        return failure, _bases(TimeoutError), attempt.overdue
    if error is None or failure is None:
        raise AssertionError(f"{attempt} has neither result nor error")
    if isinstance(error, CancelledError) and not failure.message:
        failure = replace(failure, message="the activity was cancelled, though nobody asked for that here")
    return failure, _bases(type(error)), attempt.final


def timed_out(words: str, cause: Failure | None) -> Failure:
    """Return the failure of an activity whose time is up."""
    return Failure("TimeoutError", words, "", cause, timed_out=True)


def _captured(error: BaseException) -> Failure:
    try:
        return capture(error)
    except BaseException:  # noqa: BLE001 - a __str__ that raises KeyboardInterrupt, which capture lets through
        return Failure(type(error).__name__, f"<{type(error).__name__} whose text cannot be made>")


def _bases(kind: type[BaseException]) -> tuple[str, ...]:
    return tuple(base.__name__ for base in kind.__mro__[1:])


def close_unawaited(value: object) -> None:
    """Close a coroutine that nobody will await, so that Python does not warn of it."""
    if inspect.iscoroutine(value):
        value.close()
