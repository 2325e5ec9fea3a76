"""What stands in for activities and child workflows in an environment, and the record of their calls.

The rule: whatever an activity's ``async`` code does, it does on the test's loop, replaced or not. What is not
``async`` and not replaced runs in a thread of the worker's, as always; a replacement runs on the test's loop.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Generator, Iterator
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass
from itertools import count
from typing import Any, Generic, TypeVar, cast

from continuum._core.commands import RunActivity
from continuum._core.failure import remote
from continuum._engine.attempts import is_async
from continuum._engine.engine import Engine
from continuum.activity import Activity, Parameters
from continuum.context import CALLED, enter_activity
from continuum.definitions import Definitions
from continuum.errors import ActivityFailed, DefinitionError, Failure
from continuum.policies import ActivityOptions, Retry
from continuum.testing.passing import Doing, Passing, UnderWay
from continuum.workflow import LazyCodec, Workflow, hints

__all__ = ["Call"]

R = TypeVar("R")
By = Callable[..., Any]


@dataclass(slots=True, eq=False)
class Call(Generic[R]):
    """A call of an activity, or of what stands in for a workflow: one attempt.

    ``arguments`` are by name. ``run_id`` is the run that asked for it. Until it has ended ``result`` and ``error``
    are None.
    """

    run_id: str
    arguments: dict[str, Any]
    result: R | None = None
    error: BaseException | None = None


class StandIns:
    """What runs in place of definitions. ``passing`` is told of what is under way."""

    def __init__(self, definitions: Definitions, host: asyncio.AbstractEventLoop) -> None:
        self.definitions = definitions
        self.passing: Passing
        self.calls: dict[object, list[Call[Any]]] = {}
        self.attempts: dict[UnderWay, None] = {}  # under way
        self.abandoned = False  # the test's loop does not run any more
        self._host = host
        self._by: dict[object, By] = {}  # replacements, by name; for a workflow by name and version
        self._lanes: dict[tuple[Parameters, bool], Parameters] = {}
        self._under_way: set[_HostCall] = set()

    def replace(self, definition: Any, by: By) -> None:
        """Let ``by`` run instead."""
        if not callable(by):
            raise TypeError(f"replace({definition!r}, …) takes a function: got {by!r}")
        key = key_of(definition)
        if isinstance(definition, Workflow):
            made = self._workflow(cast("Workflow[Any, Any]", definition), by)
            self.definitions.workflows[made.name, made.version] = made
        else:
            self._by[key] = by

    def deploy(self, definitions: Definitions) -> None:
        """Let other definitions be there from now on; workflows that were replaced stay so."""
        for name, flow in self.definitions.workflows.items():
            if (name in self._by) and name in definitions.workflows:
                definitions.workflows[name] = flow
        self.definitions = definitions

    def attend(self, engine: Engine) -> None:
        """Run stand-ins for the activities that ``engine`` is asked to run."""
        start = engine.activities.start

        def start_stand_in(
            owner: object, request: RunActivity, activity: Activity[Any, Any], attempt: int = 1
        ) -> None:
            run_id: str = getattr(owner, "run_id", "")
            start(owner, request, self._activity(activity, run_id, request.key, count(attempt)), attempt)

        engine.activities.start = start_stand_in  # type: ignore[method-assign]  # the engine has no other place for it

    def abandon(self) -> None:
        """Wait for nothing on the test's loop any more: it does not run."""
        self.abandoned = True
        for call in list(self._under_way):
            call.settle(None, asyncio.CancelledError())

    # --- activities

    def _activity(
        self, activity: Activity[Any, Any], run_id: str, key: str, attempts: Iterator[int]
    ) -> Activity[Any, Any]:
        """Return what runs for an activity that a run asks for."""
        made = copy(activity)
        on_loop = key_of(activity) in self._by or is_async(activity)
        lane = activity.parameters, on_loop  # which slots an activity takes goes by the identity of its parameters
        made.parameters = self._lanes.setdefault(lane, copy(activity.parameters))
        if on_loop:
            made.function = self._on_loop(activity, run_id, key, attempts)
        else:
            made.function = self._in_thread(activity, run_id, key, attempts)
        return made

    def _on_loop(self, activity: Activity[Any, Any], run_id: str, key: str, attempts: Iterator[int]) -> By:
        async def stand_in(*args: Any, **kwargs: Any) -> Any:
            call = self._call(activity, run_id, args, kwargs)
            function, args, kwargs = self._function(activity, args, kwargs)
            with self._told(key, run_id, next(attempts)):
                return await self._on_host(call, lambda: function(*args, **kwargs))

        return stand_in

    def _in_thread(self, activity: Activity[Any, Any], run_id: str, key: str, attempts: Iterator[int]) -> By:
        def stand_in(*args: Any, **kwargs: Any) -> Any:
            call = self._call(activity, run_id, args, kwargs)
            function, args, kwargs = self._function(activity, args, kwargs)
            try:
                with self._told(key, run_id, next(attempts)):
                    value = function(*args, **kwargs)
            except BaseException as error:
                call.error = error
                raise
            if inspect.isawaitable(value):
                return self._on_host(call, lambda: value)
            call.result = value
            return value

        return stand_in

    @contextmanager
    def _told(self, key: str, run_id: str, attempt: int) -> Generator[None]:
        """Let an attempt be known as under way for the block."""
        made = UnderWay(f"activity {key} of run {run_id!r}, attempt {attempt}")
        self.attempts[made] = None
        try:
            yield
        finally:
            self.attempts.pop(made, None)

    def _function(self, activity: Activity[Any, Any], args: Any, kwargs: Any) -> tuple[By, Any, Any]:
        """Return what is called, and with what: a replacement gets its arguments by place, as far as it can."""
        by = self._by.get(key_of(activity))
        if by is None:
            return activity.function, args, kwargs
        named = dict(kwargs)
        places = [
            parameter.name
            for parameter in inspect.signature(activity.function).parameters.values()
            if parameter.kind is parameter.POSITIONAL_OR_KEYWORD and parameter.name in named
        ]
        return by, (*args, *[named.pop(name) for name in places]), named

    def _call(self, activity: Activity[Any, Any], run_id: str, args: Any, kwargs: Any) -> Call[Any]:
        names = [name for name in inspect.signature(activity.function).parameters if name not in kwargs]
        call: Call[Any] = Call(run_id, {**dict(zip(names, args, strict=False)), **kwargs})
        self.calls.setdefault(key_of(activity), []).append(call)
        return call

    async def _on_host(self, call: Call[Any], function: Callable[[], Any]) -> Any:
        """Call ``function`` on the test's loop and return what it comes to; cancelling this cancels that."""
        with self.passing.doing() as doing:
            if self.abandoned:
                raise asyncio.CancelledError
            there = _HostCall(self._host, call, function, doing)
            self._under_way.add(there)
            try:
                return await there.outcome()
            finally:
                self._under_way.discard(there)

    # --- workflows

    def _workflow(self, flow: Workflow[Any, Any], by: By) -> Workflow[Any, Any]:
        """Return a workflow of that name and version that calls ``by`` as an activity, and nothing else."""
        activity = _ForWorkflow(flow)
        self._by[activity.key] = by

        async def body(*given: Any) -> Any:
            try:
                return await activity(*given)
            except ActivityFailed as failed:
                raise _as_it_was(failed.failure) from None

        made = copy(flow)
        made.function = made.__wrapped__ = body
        return made


class _ForWorkflow(Activity[..., Any]):
    """An activity that takes and returns what a workflow does, for what stands in for that."""

    def __init__(self, flow: Workflow[Any, Any]) -> None:
        def called(*_: Any) -> Any:
            raise AssertionError("its replacement is called instead")

        function: Any = called
        function.__signature__ = inspect.signature(flow.function)
        function.__annotations__ = hints(flow.function, f"workflow {flow.name!r}")
        super().__init__(function, flow.name, ActivityOptions(retry=Retry(max_attempts=1)))
        self.result = LazyCodec(function, "return", f"result of what replaces workflow {flow.name!r}")
        self.key = flow.name, flow.version


def key_of(definition: Any) -> object:
    """Return what calls and replacements of a definition are found by."""
    if isinstance(definition, Workflow):
        flow = cast("Workflow[Any, Any]", definition)
        return flow.name, flow.version
    if isinstance(definition, Activity):
        activity = cast("Activity[Any, Any]", definition)
        return activity.key if isinstance(activity, _ForWorkflow) else activity.name
    raise DefinitionError(f"an activity or a workflow is asked for: got {definition!r}")


class _HostCall:
    """A function called on the test's loop for an activity on the worker's."""

    def __init__(
        self, host: asyncio.AbstractEventLoop, call: Call[Any], function: Callable[[], Any], doing: Doing
    ) -> None:
        self._host, self._call, self._function, self._doing = host, call, function, doing
        self._called = CALLED.get()
        self._future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._task: asyncio.Task[None] | None = None
        self._begun = host.call_soon(self._begin)

    async def outcome(self) -> Any:
        """Wait for what it comes to."""
        try:
            await self._future
        except asyncio.CancelledError:
            if self._task is None:
                self._begun.cancel()
                raise
            self._task.cancel()
            self._future = asyncio.get_running_loop().create_future()
            await self._future  # its clean-up
        if self._call.error is not None:
            raise self._call.error
        return self._call.result

    def settle(self, result: Any, error: BaseException | None) -> None:
        """Say what it came to."""
        if not self._future.done():
            self._call.result, self._call.error = result, error
            self._future.set_result(None)

    def _begin(self) -> None:
        self._task = self._host.create_task(self._run(), context=self._doing.context())

    async def _run(self) -> None:
        enter_activity(self._called)
        try:
            value = self._function()
            if inspect.isawaitable(value):
                value = await cast("Awaitable[Any]", value)
        except GeneratorExit:  # the loop is gone, and this is the garbage collector
            raise
        except BaseException as error:  # noqa: BLE001 - the activity's, whatever it is
            self.settle(None, error)
        else:
            self.settle(value, None)


def _as_it_was(failure: Failure) -> Exception:
    """Return an exception that is recorded as ``failure`` was."""
    kind = type(failure.type, (Exception,), {})
    error: Exception = kind(failure.message)
    if failure.cause is not None:
        error.__cause__ = remote(failure.cause)
    return error
