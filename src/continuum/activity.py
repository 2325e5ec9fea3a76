"""Activities: the functions that touch the world.

An activity runs at least once and is recorded exactly once. Its arguments are one JSON object by parameter name,
with the defaults written out, so that the journal says what ran.
"""

from __future__ import annotations

import inspect
from asyncio import _get_running_loop
from collections.abc import Callable, Coroutine
from copy import copy
from types import FunctionType
from typing import TYPE_CHECKING, Any, Generic, NotRequired, ParamSpec, TypeVar, cast, overload

from continuum._core.codec import Codec
from continuum._core.faults import never
from continuum._core.loop import WorkflowLoop
from continuum.errors import DefinitionError
from continuum.policies import ActivityOptions, Duration, Retry, with_options
from continuum.workflow import IN_PLAIN_WORKFLOW, LazyCodec, check_name, hints, refuse_self

__all__ = ["Activity", "activity"]

P = ParamSpec("P")
R = TypeVar("R")


if TYPE_CHECKING:
    from typing_extensions import TypedDict, Unpack

    class ActivityChanges(TypedDict, total=False):
        """Options of a call or a definition; see ``ActivityOptions``."""

        retry: Retry | None
        start_to_close: Duration | None
        schedule_to_close: Duration | None
        heartbeat_timeout: Duration | None
        queue: str | None
        priority: int | None


class Activity(Generic[P, R]):
    """An activity's definition: what ``@activity`` makes of a function.

    Calling it in a workflow gives a coroutine: the key is taken at the call, the activity is asked for when it is
    first awaited, and it returns the recorded result or raises ``ActivityFailed``. Elsewhere the call is the
    plain function's.
    """

    def __init__(self, function: Callable[..., Any], name: str, options: ActivityOptions) -> None:
        self.function = self.__wrapped__ = function
        self.name = name
        self.options = options
        self.__doc__ = function.__doc__
        self.parameters = Parameters(function, name)
        self.arguments: Codec[dict[str, Any]] = ArgumentsCodec(self.parameters, f"arguments of activity {name!r}")
        self.result: Codec[R] = LazyCodec(function, "return", f"result of activity {name!r}")

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, R]:
        loop = _get_running_loop()
        if type(loop) is not WorkflowLoop:
            if IN_PLAIN_WORKFLOW.get():
                return _call_plainly(self.function, args, kwargs)
            return cast("Coroutine[Any, Any, R]", self.function(*args, **kwargs))
        if loop.stopped:
            return never()
        scope = loop.scope()
        key = scope.key(self.name)
        given = self.arguments.encode(self.parameters.pack(*args, **kwargs))
        loop.unstarted += 1
        call: Any = loop.machine.activities.run(key, scope.path, self, given, self.options)
        call.__qualname__ = self.name  # Python warns of a call that is never awaited by this name
        return call  # type: ignore[no-any-return]

    def with_options(self, **changes: Unpack[ActivityChanges]) -> Activity[P, R]:
        """Return this activity with other options, for a call: ``charge.with_options(retry=…)(order)``."""
        made = copy(self)
        made.options = with_options(f"activity {self.name!r}", self.options, changes)
        return made

    def prepare(self) -> None:
        """Resolve all annotations now. Raises ``DefinitionError`` for one that has no JSON form."""
        self.arguments.prepare()
        self.result.prepare()

    def __repr__(self) -> str:
        return f"<activity {self.name}>"


async def _call_plainly(function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Run an activity for a workflow that is called plainly; what the activity calls in turn is called plainly."""
    IN_PLAIN_WORKFLOW.set(False)
    try:
        value = function(*args, **kwargs)
        return await value if inspect.isawaitable(value) else value
    finally:
        IN_PLAIN_WORKFLOW.set(True)


class Parameters:
    """An activity's parameters: a call's arguments to one dict by name, and back.

    ``pack`` takes what the activity takes and returns the dict, defaults included. It is compiled from the
    signature, as dataclasses compile theirs: then Python itself binds the arguments, and words what is wrong.
    """

    __slots__ = ("_function", "_name", "_names", "_positional_only", "by_name", "defaults", "pack")

    def __init__(self, function: Callable[..., Any], name: str) -> None:
        parameters = inspect.signature(function).parameters.values()
        refuse_self(f"activity {name!r}", [parameter.name for parameter in parameters])
        for parameter in parameters:
            if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
                raise DefinitionError(
                    f"activity {name!r} takes *{parameter.name}, and arguments are recorded by name; "
                    f"use a list or dict"
                )
        self._function = function
        self._name = name
        self._names = [p.name for p in parameters]
        self._positional_only = [p.name for p in parameters if p.kind is p.POSITIONAL_ONLY]
        self.by_name = not self._positional_only  # whether all may be given by name
        self.defaults = {p.name: p.default for p in parameters if p.default is not p.empty}
        self.pack = _compile_packer(inspect.signature(function), self.defaults, f"activity {name!r}")

    def call(self, function: Callable[..., R], arguments: dict[str, Any]) -> R:
        """Call ``function`` with arguments that were recorded by name."""
        if not self._positional_only:
            return function(**arguments)
        named = dict(arguments)
        return function(*[named.pop(name) for name in self._positional_only], **named)  # popped before ** copies

    def annotation(self) -> Any:
        """Return the ``TypedDict`` of all parameters; one with a default may be missing in an older record."""
        from typing_extensions import TypedDict  # pydantic asks for this one before Python 3.12

        types = hints(self._function, f"arguments of activity {self._name!r}")
        fields: dict[str, Any] = {name: types.get(name, Any) for name in self._names}
        for name in self.defaults:
            fields[name] = NotRequired[fields[name]]
        made: Any = TypedDict  # called as a function: its fields are data
        return made(f"{self._name}_arguments", fields)


def _compile_packer(
    signature: inspect.Signature, defaults: dict[str, Any], name: str
) -> Callable[..., dict[str, Any]]:
    """Return a function of that signature that returns its arguments by name."""
    bare = [
        parameter.replace(annotation=parameter.empty, default=parameter.empty)
        for parameter in signature.parameters.values()
    ]
    names = ", ".join(f"{parameter.name!r}: {parameter.name}" for parameter in bare)
    namespace: dict[str, Any] = {}
    exec(f"def pack{inspect.Signature(bare)}: return {{{names}}}", namespace)
    pack: FunctionType = namespace["pack"]
    pack.__defaults__ = tuple(
        defaults[p.name] for p in bare if p.kind is not p.KEYWORD_ONLY and p.name in defaults
    )
    pack.__kwdefaults__ = {
        p.name: defaults[p.name] for p in bare if p.kind is p.KEYWORD_ONLY and p.name in defaults
    }
    pack.__name__ = pack.__qualname__ = name
    return pack


class ArgumentsCodec(Codec[dict[str, Any]]):
    """The codec of an activity's arguments."""

    __slots__ = ("_parameters",)

    def __init__(self, parameters: Parameters, what: str) -> None:
        super().__init__(None, what)
        self._parameters = parameters

    def prepare(self) -> Any:
        if self._adapter is None:
            self._annotation = self._parameters.annotation()
        return super().prepare()

    def decode(self, data: bytes) -> dict[str, Any]:
        arguments = super().decode(data)
        defaults = self._parameters.defaults
        return {**defaults, **arguments} if defaults else arguments


@overload
def activity(function: Callable[P, Coroutine[Any, Any, R]], /) -> Activity[P, R]: ...
@overload
def activity(function: Callable[P, R], /) -> Activity[P, R]: ...
@overload
def activity(*, name: str | None = None, **options: Unpack[ActivityChanges]) -> _ActivityDecorator: ...
def activity(function: Any = None, /, *, name: str | None = None, **options: Any) -> Any:
    """Make an activity of a function, ``async`` or plain; a plain one runs in a thread.

    ``name`` is what the journal calls it (default: the function's name); see ``ActivityOptions`` for the rest.

    >>> @activity(retry=Retry(max_attempts=5))
    ... async def charge(order_id: str, cents: int) -> str:
    ...     return f"{order_id}: {cents}"
    >>> charge
    <activity charge>
    """
    decorator = _ActivityDecorator(name, with_options("@activity", ActivityOptions(), options))
    return decorator if function is None else decorator(function)


class _ActivityDecorator:
    __slots__ = ("_name", "_options")

    def __init__(self, name: str | None, options: ActivityOptions) -> None:
        self._name = name
        self._options = options

    @overload
    def __call__(self, function: Callable[P, Coroutine[Any, Any, R]], /) -> Activity[P, R]: ...
    @overload
    def __call__(self, function: Callable[P, R], /) -> Activity[P, R]: ...
    def __call__(self, function: Any, /) -> Any:
        name = check_name("activity", function, self._name)
        if inspect.isasyncgenfunction(function) or inspect.isgeneratorfunction(function):
            raise DefinitionError(f"activity {name!r} must not yield; return one result")
        if isinstance(function, type):
            raise DefinitionError(f"activity {name!r} must be a function: got a class")
        made: Activity[Any, Any] = Activity(function, name, self._options)
        return made
