"""Workflow definitions.

A workflow is an ``async def`` with one input and one result. Decorating it makes a definition, a value without
side effects; called outside a running workflow a definition is the plain function.
"""

from __future__ import annotations

import datetime as dt
import difflib
import inspect
from collections.abc import Callable, Collection, Coroutine, Iterable, Mapping, Sequence
from contextvars import ContextVar
from typing import Any, Generic, TypeVar, cast, get_type_hints, overload

from continuum._core.codec import ANY, Codec
from continuum._core.faults import Unwind, never
from continuum._core.guards import scan
from continuum._core.keys import check_definition_name
from continuum._core.loop import WorkflowLoop, running_workflow
from continuum.errors import DefinitionError, UnknownMessage, WorkflowMisuse
from continuum.policies import refuse_unknown
from continuum.updates import Update

__all__ = ["Workflow", "deterministic", "workflow"]

I = TypeVar("I")  # noqa: E741 - input, as R is result
R = TypeVar("R")
T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])

_OPTIONS = ("name", "version", "signals", "updates", "state")
_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)


class Workflow(Generic[I, R]):
    """A workflow's definition: what ``@workflow`` makes of a function.

    ``name`` and ``version`` identify it in the journal, ``function`` is the plain function, ``input`` and
    ``result`` are the codecs of its annotations, ``signals`` those of its declared signals, ``state`` that of what
    it publishes; ``updates`` are those it answers. Calling it outside a workflow runs ``function``; inside one,
    start it with ``child`` or ``start_child``.
    """

    def __init__(
        self,
        function: Callable[..., Coroutine[Any, Any, R]],
        name: str,
        version: int,
        signals: Mapping[str, Any],
        updates: Sequence[Update[Any, Any]] = (),
        state: Any = None,
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
        self.updates = {update.name: update for update in updates}
        self.state: Codec[Any] = Codec(Any if state is None else state, f"state of workflow {name!r}")

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
        return _call_plainly(self.function, args, kwargs)

    def signal_codec(self, name: str) -> Codec[Any]:
        """Return the codec of a signal's payload: plain JSON for a workflow that declares no signals.

        Raises ``UnknownMessage`` for one that it does not declare though it declares others.
        """
        problem = undeclared_signal(self.name, name, self.signals)
        if problem is not None:
            raise UnknownMessage(self.name, name, problem)
        return self.signals.get(name, ANY)

    def update(self, name: str) -> Update[Any, Any]:
        """Return the update of that name. Raises ``UnknownMessage`` if the workflow does not declare it."""
        problem = self.undeclared(name)
        if problem is not None:
            raise UnknownMessage(self.name, name, problem)
        return self.updates[name]

    def undeclared(self, name: str) -> str | None:
        """Say what is wrong with an update's name, or None if the workflow declares it."""
        if name in self.updates:
            return None
        return f"workflow {self.name!r} declares no update {name!r}; {nearest(name, self.updates)}"

    def start(self, value: I) -> Coroutine[Any, Any, R]:
        """Make the coroutine that runs the workflow's code on ``value``."""
        return self.function(value) if self._takes_input else self.function()

    def prepare(self) -> None:
        """Resolve all annotations now. Raises ``DefinitionError`` for one that has no JSON form."""
        codecs: list[Codec[Any]] = [self.input, self.result, self.state, *self.signals.values()]
        for update in self.updates.values():
            codecs += [update.input, update.result]
        for codec in codecs:
            codec.prepare()

    def __repr__(self) -> str:
        return f"<workflow {self.name} version {self.version}>"


IN_PLAIN_WORKFLOW: ContextVar[bool] = ContextVar("continuum_in_plain_workflow", default=False)
"""Whether a workflow's function runs as a plain call: its code awaits all activities, also those not ``async``."""


async def _call_plainly(function: Callable[..., Coroutine[Any, Any, R]], args: Any, kwargs: Any) -> R:
    before = IN_PLAIN_WORKFLOW.get()
    IN_PLAIN_WORKFLOW.set(True)
    try:
        return await function(*args, **kwargs)
    finally:
        IN_PLAIN_WORKFLOW.set(before)


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
    *,
    name: str | None = None,
    version: int = 1,
    signals: Mapping[str, Any] | None = None,
    updates: Sequence[Update[Any, Any]] | None = None,
    state: Any = None,
) -> _WorkflowDecorator: ...
def workflow(function: Any = None, /, **options: Any) -> Any:
    """Make a workflow of an ``async def`` with one input (or none) and one result.

    ``name`` is what the journal calls it (default: the function's name); ``version`` is raised when running
    runs must stay on the old code; ``signals`` maps the names of signals to their types, ``updates`` are the
    ``Update`` values that its runs answer, ``state`` is the type of what ``set_state`` publishes. Raises
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
        signals: Any = self._options.get("signals") or {}
        if not isinstance(signals, Mapping):
            raise DefinitionError(
                f"workflow {name!r}: signals maps names to types, as {{'approve': Approval}}: got {signals!r}"
            )
        made: Workflow[Any, Any] = Workflow(
            function,
            name,
            version,
            cast("Mapping[str, Any]", signals),
            _checked_updates(name, self._options.get("updates")),
            self._options.get("state"),
        )
        scan(function, f"workflow {name!r}")
        return made


def _checked_updates(workflow: str, given: Any) -> Sequence[Update[Any, Any]]:
    many = isinstance(given, (list, tuple))
    updates: list[Any] = list(cast("Sequence[Any]", given)) if many else [given] * (given is not None)
    names = [update.name for update in updates if isinstance(update, Update)]
    if len(names) != len(updates) or len(set(names)) != len(names):
        raise DefinitionError(
            f"workflow {workflow!r}: updates are Update values of different names, as [set_address]: got {given!r}"
        )
    return updates


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
    refuse_self(f"workflow {name!r}", positional)
    if any(parameter.default is not parameter.empty for parameter in parameters.values()):
        raise DefinitionError(
            f"workflow {name!r}: its input has a default, which no journal would show; start it with the value or "
            f"give defaults to the fields of a dataclass"
        )
    if len(parameters) > 1 or len(positional) != len(parameters):
        raise DefinitionError(
            f"workflow {name!r} takes one input, and has {len(parameters)} parameters ({', '.join(parameters)}); "
            f"put them into one dataclass or model"
        )
    return positional


def refuse_self(what: str, parameters: Sequence[str]) -> None:
    """Raise ``DefinitionError`` for a method: there is no object to call it on in another process."""
    if parameters and parameters[0] in ("self", "cls"):
        raise DefinitionError(
            f"{what} is a method, and its object lives in one process; use a function of a module"
        )


def undeclared_signal(workflow: str, name: str, declared: Collection[str]) -> str | None:
    """Say what is wrong with a signal's name, or None if it is declared, or if the workflow declares none."""
    if not declared or name in declared:
        return None
    return f"workflow {workflow!r} declares no signal {name!r}; {nearest(name, declared)}"


def nearest(name: str, known: Iterable[str]) -> str:
    """Return the end of a message about an unknown name: which one may have been meant, else all there are."""
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=1)
    return f"did you mean {near[0]!r}?" if near else f"there are: {', '.join(names) or 'none'}"


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
    if loop.stopped:  # the run has a fault or is let go; what its code still tries has no effect
        raise Unwind
    return loop


async def entered(function: str) -> WorkflowLoop:
    """Return the loop as ``current`` does; in a run that has stopped wait for ever."""
    loop = running_workflow()
    if loop is not None and loop.stopped:
        await never()
    return current(function)
