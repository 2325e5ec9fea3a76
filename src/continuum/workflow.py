"""Workflows, and what every workflow may call: time, chance, conditions, patches, continuing as new.

A workflow is an ``async def`` with one input and one result. Decorating it makes a definition, a value without
side effects; called outside a running workflow a definition is the plain function.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import hashlib
import inspect
import logging
import random as chance
import uuid
from collections.abc import Callable, Coroutine, Mapping, MutableMapping
from typing import Any, Generic, NoReturn, TypeVar, cast, get_type_hints, overload

from continuum._core.codec import ANY, Codec
from continuum._core.commands import ApplyPatch, RecordSideEffect
from continuum._core.decisions import Decisions
from continuum._core.entries import fields_of, value_in
from continuum._core.failure import capture, decode_failure, remote
from continuum._core.faults import Unwind
from continuum._core.guards import scan
from continuum._core.keys import check_child_key, check_definition_name
from continuum._core.loop import WATCH, WorkflowLoop, running_workflow
from continuum.errors import DecodeError, DefinitionError, EncodeError, SideEffectFailed, WorkflowMisuse
from continuum.policies import Duration, duration, refuse_unknown

__all__ = [
    "Workflow",
    "continue_as_new",
    "deterministic",
    "log",
    "now",
    "patched",
    "random",
    "side_effect",
    "uuid4",
    "wait_condition",
    "workflow",
]

I = TypeVar("I")  # noqa: E741 - input, as R is result
R = TypeVar("R")
T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])

_OPTIONS = ("name", "version", "signals")
_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)


class Workflow(Generic[I, R]):
    """A workflow's definition: what ``@workflow`` makes of a function.

    ``name`` and ``version`` identify it in the journal, ``function`` is the plain function, ``input`` and
    ``result`` are the codecs of its annotations, ``signals`` those of its declared signals. Calling it outside a
    workflow calls ``function``; inside one, start it with ``child`` or ``start_child``.
    """

    def __init__(
        self,
        function: Callable[..., Coroutine[Any, Any, R]],
        name: str,
        version: int,
        signals: Mapping[str, Any],
    ) -> None:
        parameters = _check_function(function, name)
        self.function = self.__wrapped__ = function
        self.name = name
        self.version = version
        self.__doc__ = function.__doc__
        self._takes_input = bool(parameters)
        self.input: Codec[I] = LazyCodec(
            function, parameters[0] if parameters else None, f"input of workflow {name!r}"
        )
        self.result: Codec[R] = LazyCodec(function, "return", f"result of workflow {name!r}")
        self.signals = {
            signal: Codec[Any](kind, f"signal {signal!r} of workflow {name!r}") for signal, kind in signals.items()
        }

    @overload
    def __call__(self: Workflow[None, R]) -> Coroutine[Any, Any, R]: ...
    @overload
    def __call__(self, value: I, /) -> Coroutine[Any, Any, R]: ...
    def __call__(self, *args: Any, **kwargs: Any) -> Coroutine[Any, Any, R]:
        if running_workflow() is not None:
            raise WorkflowMisuse(
                f"workflow {self.name!r} was called inside a workflow: `await child({self.function.__name__}, …)` "
                f"runs it as a child, `{self.function.__name__}.function(…)` runs its code in this run"
            )
        return self.function(*args, **kwargs)

    def start(self, value: I) -> Coroutine[Any, Any, R]:
        """Make the coroutine that runs the workflow's code on ``value``."""
        return self.function(value) if self._takes_input else self.function()

    def prepare(self) -> None:
        """Resolve all annotations now. Raises ``DefinitionError`` for one that has no JSON form."""
        codecs: list[Codec[Any]] = [self.input, self.result, *self.signals.values()]
        for codec in codecs:
            codec.prepare()

    def __repr__(self) -> str:
        return f"<workflow {self.name} version {self.version}>"


class LazyCodec(Codec[T]):
    """The codec of one annotation of a function, looked up at first use: it may name what is defined later."""

    __slots__ = ("_function", "_name")

    def __init__(self, function: Callable[..., Any], name: str | None, what: str) -> None:
        super().__init__(None, what)
        self._function = function
        self._name = name

    def prepare(self) -> Any:
        if self._adapter is None and self._name is not None:
            self._annotation = hints(self._function, self.what).get(self._name, Any)
        return super().prepare()


def hints(function: Callable[..., Any], what: str) -> dict[str, Any]:
    """Return a function's resolved annotations. Raises ``DefinitionError`` for a name that is not found."""
    try:
        return get_type_hints(function, include_extras=True)
    except NameError as error:
        raise DefinitionError(
            f"{what}: its annotation names {error.name!r}, not found in module {function.__module__}; define or "
            f"import it there, not under TYPE_CHECKING"
        ) from None


@overload
def workflow(function: Callable[[I], Coroutine[Any, Any, R]], /) -> Workflow[I, R]: ...
@overload
def workflow(function: Callable[[], Coroutine[Any, Any, R]], /) -> Workflow[None, R]: ...
@overload
def workflow(
    *, name: str | None = None, version: int = 1, signals: Mapping[str, Any] | None = None
) -> _WorkflowDecorator: ...
def workflow(function: Any = None, /, **options: Any) -> Any:
    """Make a workflow of an ``async def`` with one input (or none) and one result.

    ``name`` is what the journal calls it (default: the function's name); ``version`` is raised when running
    runs must stay on the old code; ``signals`` maps the names of signals to their types. Raises
    ``DefinitionError`` if the function cannot be a workflow, ``NotDeterministic`` if its source uses a clock,
    randomness, I/O, threads or the environment.

    >>> @workflow(version=2)
    ... async def greet(name: str) -> str:
    ...     return f"hello {name}"
    >>> greet
    <workflow greet version 2>
    """
    refuse_unknown("@workflow", (name for name in options if name not in _OPTIONS), _OPTIONS)
    if function is None:
        return _WorkflowDecorator(options)
    return _WorkflowDecorator(options)(function)


class _WorkflowDecorator:
    __slots__ = ("_options",)

    def __init__(self, options: dict[str, Any]) -> None:
        self._options = options

    @overload
    def __call__(self, function: Callable[[I], Coroutine[Any, Any, R]], /) -> Workflow[I, R]: ...
    @overload
    def __call__(self, function: Callable[[], Coroutine[Any, Any, R]], /) -> Workflow[None, R]: ...
    def __call__(self, function: Any, /) -> Any:
        name = check_name("workflow", function, self._options.get("name"))
        version: Any = self._options.get("version", 1)
        if not isinstance(version, int) or isinstance(version, bool) or version < 1:
            raise DefinitionError(f"workflow {name!r}: version is an int from 1: got {version!r}")
        made: Workflow[Any, Any] = Workflow(function, name, version, self._options.get("signals") or {})
        scan(function, f"workflow {name!r}")
        return made


def check_name(kind: str, function: Any, name: object) -> str:
    """Return the name of a definition, given or the function's own. Raises ``DefinitionError``."""
    if not callable(function) or not hasattr(function, "__name__"):
        raise DefinitionError(f"@{kind} decorates a function: got {function!r}")
    found: object = name if name is not None else function.__name__
    try:
        return check_definition_name(found)
    except (TypeError, ValueError) as error:
        raise DefinitionError(
            f"@{kind} {function.__name__}: its name cannot be used: {error}; give a name="
        ) from None


def _check_function(function: Any, name: str) -> list[str]:
    """Return the names of a workflow's parameters: none or one."""
    if inspect.isasyncgenfunction(function) or inspect.isgeneratorfunction(function):
        raise DefinitionError(
            f"workflow {name!r} must not yield; return one result, and publish progress from activities"
        )
    if not inspect.iscoroutinefunction(function):
        raise DefinitionError(f"workflow {name!r} must be an `async def`; a plain function may be an @activity")
    parameters = inspect.signature(function).parameters
    positional = [
        parameter.name
        for parameter in parameters.values()
        if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD)
    ]
    if len(parameters) > 1 or len(positional) != len(parameters):
        raise DefinitionError(
            f"workflow {name!r} takes one input, and has {len(parameters)} parameters ({', '.join(parameters)}); "
            f"put them into one dataclass or model"
        )
    return positional


def deterministic(function: F) -> F:
    """Mark a helper that workflows call as workflow code: its source is held to the same rules.

    Unmarked helpers are trusted. Raises ``NotDeterministic``; returns the function itself.
    """
    scan(function, f"function {function.__name__!r}")
    return function


def current(function: str) -> WorkflowLoop:
    """Return the loop of the workflow that calls ``function``. Raises ``WorkflowMisuse`` outside of one."""
    loop = running_workflow()
    if loop is None:
        raise WorkflowMisuse(
            f"{function}() works only while a workflow's code runs: it was called outside a workflow, or in "
            f"another thread; from an application use the client"
        )
    if loop.stopped:  # the run has a fault; what its code still tries has no effect
        raise Unwind
    return loop


# Time and chance.


def now() -> dt.datetime:
    """Return the time of the event being handled, as an aware datetime in UTC. It stands still in a turn."""
    return _EPOCH + dt.timedelta(microseconds=current("now").now_us)


def random() -> chance.Random:
    """Return this task's random numbers, seeded by run id, generation and task path. Leaves no entry."""
    streams, seed = _streams("random")
    if "random" not in streams:
        streams["random"] = chance.Random(seed)
    return cast("chance.Random", streams["random"])


def uuid4() -> uuid.UUID:
    """Return the next of this task's UUIDs, derived from run id, generation and task path. Leaves no entry."""
    streams, seed = _streams("uuid4")
    streams["uuid4"] = count = streams.get("uuid4", 0) + 1
    digest = hashlib.blake2b(f"{seed}|uuid4|{count}".encode(), digest_size=16).digest()
    return uuid.UUID(bytes=digest, version=4)


def _streams(function: str) -> tuple[dict[str, Any], str]:
    loop = current(function)
    scope = loop.scope()
    if scope.streams is None:
        scope.streams = {}
    context = loop.machine.context
    return scope.streams, f"{context.run_id}|{context.generation}|{scope.path}"


# Decisions.


def side_effect(function: Callable[[], T], *, type: Any = None) -> T:  # noqa: A002 - as wait_signal has it
    """Call ``function`` now, once for all replays, and return its value as the journal holds it.

    For quick reads of what a workflow may not read (a clock, the environment); what can fail or take time
    belongs into an activity. The value is journaled with the turn; a worker that dies before that calls the
    function again. ``type`` is the value's annotation (default: the function's own, else plain JSON). Raises
    ``SideEffectFailed`` if the function raised, or if JSON does not give its value back.

    >>> side_effect(lambda: os.environ["REGION"], type=str)  # doctest: +SKIP
    """
    loop = current("side_effect")
    scope, decisions = loop.scope(), loop.machine.decisions
    key = scope.key("side_effect")
    annotation = type if type is not None else getattr(function, "__annotations__", {}).get("return", Any)
    codec: Codec[T] = ANY if annotation is Any else Codec(annotation, f"side effect {key}")
    if decisions.recorded is not None:
        return _recorded_side_effect(decisions, key, scope.path, codec)
    loop.aside = True
    try:
        with WATCH.suspended():
            value = function()
        if inspect.isawaitable(value):
            if asyncio.iscoroutine(value):
                value.close()
            raise TypeError("side_effect() takes a plain function; for an async one write an @activity")
        data = codec.encode(value)
        given = codec.decode(data)
        if given != value:
            raise EncodeError(f"side effect {key}", f"JSON turns {value!r} into {given!r}; pass type=")
    except Exception as error:  # noqa: BLE001 - whatever it is, it is journaled and raised as a replay will raise it
        failure = capture(error)
        decisions.decide(RecordSideEffect(key, None, failure), scope.path)
        raise SideEffectFailed(failure) from remote(failure)
    finally:
        loop.aside = False
    decisions.decide(RecordSideEffect(key, data), scope.path)
    return given


def _recorded_side_effect(decisions: Decisions, key: str, path: str, codec: Codec[T]) -> T:
    entry = decisions.take("side_effect_recorded", key)
    if entry is None:
        decisions.diverge(f"no side effect {key} at this point", f"side_effect {key}", path, key)
    try:
        if "error" not in fields_of(entry):
            return codec.decode(value_in(entry, "value"))
        failure = decode_failure(value_in(entry, "error"))
    except DecodeError as error:
        decisions.undecodable(error, key)
    raise SideEffectFailed(failure) from remote(failure)


def patched(patch: str) -> bool:
    """Say whether this run takes the new path of ``patch``: the first time it asks decides for the generation.

    A run that had passed this point before the patch was deployed keeps the old path. Once no such run is left,
    the call can be removed with the old path.
    """
    loop = current("patched")
    loop.scope()
    decisions = loop.machine.decisions
    taken = decisions.patches.get(patch)
    if taken is None:
        if decisions.recorded is not None:
            taken = decisions.take("patch_applied", patch) is not None
        else:
            decisions.decide(ApplyPatch(check_child_key(patch)), "")
            taken = True
        decisions.patches[patch] = taken
    return taken


def continue_as_new(value: Any = None, /) -> NoReturn:
    """End this generation of the run and open the next with ``value`` as its input, under the same run id.

    The next generation has a fresh history; unread signals and living children stay with the run; whoever
    awaits the run gets the last generation's result. Works in the main task only, by raising a
    ``BaseException``; tasks still pending are dropped. Raises ``EncodeError`` if ``value`` is no input.
    """
    current("continue_as_new").machine.continue_as_new(value)


async def wait_condition(predicate: Callable[[], object], *, timeout: Duration | None = None) -> None:
    """Wait until ``predicate()`` is true; it is asked whenever the workflow's code has run.

    ``timeout`` (a ``timedelta`` or seconds) is a durable timer; past it ``TimeoutError`` is raised.
    """
    conditions = current("wait_condition").machine.conditions
    if timeout is None:
        await conditions.wait(predicate)
        return
    async with asyncio.timeout(duration("timeout", timeout).total_seconds()):
        await conditions.wait(predicate)


class _Log(logging.LoggerAdapter[logging.Logger]):
    """A logger for workflow code: silent while a replay repeats what was logged before; adds ``run_id``."""

    def isEnabledFor(self, level: int) -> bool:  # noqa: N802 - logging's name
        loop = running_workflow()
        return not (loop is not None and loop.machine.replaying) and super().isEnabledFor(level)

    def process(self, msg: Any, kwargs: MutableMapping[str, Any]) -> tuple[Any, MutableMapping[str, Any]]:
        loop = running_workflow()
        if loop is not None:
            kwargs["extra"] = {**(kwargs.get("extra") or {}), "run_id": loop.machine.context.run_id}
        return msg, kwargs


log = _Log(logging.getLogger("continuum.workflow"), {})
