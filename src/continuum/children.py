"""Child workflows: start, await, cancel; one or ten thousand.

All children that are started before the workflow next waits are one commit. A child is a run of its own: any
worker that has its code runs it, and its parent's crash does not touch it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Generator, Iterable
from contextvars import Context
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar, cast, get_args, overload
from zlib import crc32

from continuum._core.child import Child, InOrderOfEnds
from continuum._core.codec import ANY, Codec
from continuum._core.commands import SendSignal
from continuum._core.family import Family
from continuum._core.faults import never
from continuum._core.keys import check_text
from continuum._core.loop import WorkflowLoop, running_workflow
from continuum.errors import ChildCancelled, ChildFailed, DefinitionError
from continuum.policies import ChildOptions, Duration, ParentClose, Retry, expect, with_options
from continuum.workflow import Workflow, current, entered

__all__ = [
    "Cancelled",
    "ChildRef",
    "Completed",
    "Failed",
    "Outcome",
    "as_completed",
    "await_child",
    "await_children",
    "child",
    "start_child",
]

MAX_NAME_BYTES = 200
MAX_REASON_BYTES = 1000

I = TypeVar("I")  # noqa: E741 - input, as R is result
R = TypeVar("R")


if TYPE_CHECKING:
    from pydantic_core import core_schema
    from typing_extensions import TypedDict, Unpack

    class ChildChanges(TypedDict, total=False):
        """Options of one child; see ``ChildOptions``."""

        on_parent_close: ParentClose
        timeout: Duration | None
        retry: Retry | None
        attributes: dict[str, Any] | None
        priority: int | None


@dataclass(frozen=True, slots=True)
class Completed(Generic[R]):
    """A child returned ``value``."""

    value: R


@dataclass(frozen=True, slots=True)
class Failed:
    """A child failed with ``error``."""

    error: ChildFailed


@dataclass(frozen=True, slots=True)
class Cancelled:
    """A child was cancelled; ``reason`` is ``parent_cancelled`` if it fell with its parent."""

    reason: str


Outcome = Completed[R] | Failed | Cancelled


class ChildRef(Generic[R]):
    """A started child: await it for its result; also in ``gather``, ``wait``, ``TaskGroup`` and ``as_completed``.

    ``id`` is its run id, known before anything is written; ``workflow`` its workflow's name. A ref is a value:
    two refs of one child are equal, and it may be part of an input or a result (annotate ``ChildRef[Receipt]``),
    so that the next generation can await it. Cancelling ``await ref`` leaves the child alone.
    """

    __slots__ = ("_flow", "_result", "id", "workflow")

    def __init__(
        self,
        id: str,  # noqa: A002 - the field's name
        workflow: str = "",
        result: Codec[R] | None = None,
        flow: Workflow[Any, R] | None = None,
    ) -> None:
        self.id = id
        self.workflow = workflow
        self._result: Codec[R] = result if result is not None else ANY
        self._flow = flow

    def __await__(self) -> Generator[Any, None, R]:
        return self._value().__await__()

    async def outcome(self) -> Outcome[R]:
        """Wait for the child and return how it ended instead of raising."""
        try:
            return Completed(await self)
        except ChildFailed as error:
            return Failed(error)
        except ChildCancelled as error:
            return Cancelled(error.reason)

    def signal(self, name: str, payload: Any = None) -> None:
        """Send the child a signal, in the commit of this turn.

        A ref from ``start_child`` knows what its workflow declares; one that came by an input sends plain JSON.
        Raises ``EncodeError`` and ``UnknownMessage``.
        """
        loop = current("ChildRef.signal")
        scope = loop.scope()
        loop.machine.children.find(self.id)
        check_text("signal's name", name, MAX_NAME_BYTES)
        codec = ANY if self._flow is None else self._flow.signal_codec(name)
        decision = SendSignal(scope.key(f"signal_{name}"), self.id, name, codec.encode(payload))
        loop.machine.decisions.decide(decision, scope.path, codec)

    def cancel(self, reason: str = "cancelled by its parent") -> None:
        """Cancel the child and everything below it, with this turn's commit. One that has ended is left alone."""
        family, found = self._find("ChildRef.cancel")
        check_text("reason", reason, MAX_REASON_BYTES)
        family.cancel(found, current("ChildRef.cancel").scope().path, reason)

    # What asyncio.wait asks of a future.

    def done(self) -> bool:
        """Say whether this run has heard how the child ended."""
        return self._find("ChildRef.done")[1].outcome is not None

    def cancelled(self) -> Literal[False]:
        """Return False: a cancelled child is an outcome like others, see ``exception``."""
        return False

    def result(self) -> R:
        """Return the result of a child that has ended, or raise how it ended. Raises ``InvalidStateError``."""
        family, found = self._find("ChildRef.result")
        if found.outcome is None:
            raise asyncio.InvalidStateError(f"child {self.id!r} has not ended")
        return cast("R", family.value(found, self.workflow, self._result))

    def exception(self) -> BaseException | None:
        """Return how a child that has ended failed or was cancelled, or None."""
        try:
            self.result()
        except (ChildFailed, ChildCancelled) as error:
            return error
        return None

    def add_done_callback(self, callback: Callable[[Any], object], /, *, context: Context | None = None) -> None:
        """Call ``callback(ref)`` from the loop when the child has ended."""
        family, found = self._find("ChildRef.add_done_callback")
        family.when_ended(found, callback, self, context=context)

    def remove_done_callback(self, callback: Callable[[Any], object], /) -> int:
        """Drop a callback; return how many were dropped."""
        family, found = self._find("ChildRef.remove_done_callback")
        return family.forget(found, callback)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ChildRef) and cast("ChildRef[Any]", other).id == self.id

    def __hash__(self) -> int:
        return crc32(self.id.encode())  # the same in every process, so that sets of refs iterate in one order

    def __repr__(self) -> str:
        return f"<child {self.id}{f' ({self.workflow})' if self.workflow else ''}>"

    async def _value(self) -> R:
        family = (await entered("await ref")).machine.children
        found = family.find(self.id)
        await family.wait(found)
        return cast("R", family.value(found, self.workflow, self._result))

    def _find(self, function: str) -> tuple[Family, Child]:
        family = current(function).machine.children
        return family, family.find(self.id)

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> core_schema.CoreSchema:
        from pydantic_core import core_schema

        kinds = get_args(source)
        result: Codec[Any] = Codec(kinds[0], f"result of child ({source})") if kinds else ANY

        def read(plain: Any) -> ChildRef[Any]:
            return ChildRef(plain["id"], plain.get("workflow", ""), result)

        def write(ref: ChildRef[Any]) -> dict[str, str]:
            return {"id": ref.id, "workflow": ref.workflow}

        fields = core_schema.typed_dict_schema(
            {
                "id": core_schema.typed_dict_field(core_schema.str_schema(min_length=1)),
                "workflow": core_schema.typed_dict_field(core_schema.str_schema(), required=False),
            }
        )
        from_json = core_schema.no_info_after_validator_function(read, fields)
        return core_schema.json_or_python_schema(
            json_schema=from_json,
            python_schema=core_schema.union_schema([core_schema.is_instance_schema(ChildRef), from_json]),
            serialization=core_schema.plain_serializer_function_ser_schema(write),
        )


@overload
def start_child(
    flow: Workflow[None, R], /, *, id: str | None = None, **options: Unpack[ChildChanges]
) -> ChildRef[R]: ...
@overload
def start_child(
    flow: Workflow[I, R], value: I, /, *, id: str | None = None, **options: Unpack[ChildChanges]
) -> ChildRef[R]: ...
def start_child(flow: Any, value: Any = None, /, *, id: str | None = None, **options: Any) -> ChildRef[Any]:  # noqa: A002
    """Start a child and return its ref at once; nothing is awaited.

    All children started before the workflow next waits are inserted in one commit, with their entries. ``id``
    names the child among this run's, for all generations: the same id with the same workflow and input is the
    same child. Without it the id is derived from the call's place: ``order_flow-1``, ``t2.order_flow-1``. Raises
    ``EncodeError`` for an input of another type, ``InvalidId``, ``DuplicateChildId``, ``ChildDepthExceeded``.

    >>> refs = [start_child(order_flow, order, id=f"order-{order.id}") for order in orders]  # doctest: +SKIP
    """
    loop = current("start_child")
    scope, family = loop.scope(), loop.machine.children
    checked = check_flow("start_child", flow)
    key = family.key(scope, checked.name, id)
    given = checked.input.encode(value)
    made = child_options("start_child()", options) if options else _DEFAULT
    started = family.start(key, scope.path, checked, given, made)
    return ChildRef(started.run_id, checked.name, checked.result, checked)


@overload
def child(
    flow: Workflow[None, R], /, *, id: str | None = None, **options: Unpack[ChildChanges]
) -> Coroutine[Any, Any, R]: ...
@overload
def child(
    flow: Workflow[I, R], value: I, /, *, id: str | None = None, **options: Unpack[ChildChanges]
) -> Coroutine[Any, Any, R]: ...
def child(flow: Any, value: Any = None, /, *, id: str | None = None, **options: Any) -> Coroutine[Any, Any, Any]:  # noqa: A002
    """Start a child, wait for it, return its result; cancelling the wait cancels the child.

    The key is taken at the call, the child is started when the coroutine is first awaited. Options and errors
    as in ``start_child``; also ``ChildFailed``, ``ChildCancelled``.

    >>> audit = await child(audit_flow, batch.id)  # doctest: +SKIP
    """
    stopped = running_workflow()
    if stopped is not None and stopped.stopped:
        return never()
    loop = current("child")
    scope, family = loop.scope(), loop.machine.children
    checked = check_flow("child", flow)
    key = family.key(scope, checked.name, id)
    given = checked.input.encode(value)
    made = child_options("child()", options)
    family.refuse_duplicate(key, checked, given)
    loop.unstarted += 1
    return _start_and_wait(loop, key, scope.path, checked, given, made)


async def await_child(ref: ChildRef[R]) -> R:
    """Wait until a child ends and return its result. Raises ``ChildFailed`` or ``ChildCancelled``."""
    return await _expect_ref("await_child", ref)


@overload
async def await_children(refs: Iterable[ChildRef[R]], *, return_exceptions: Literal[False] = False) -> list[R]: ...
@overload
async def await_children(
    refs: Iterable[ChildRef[R]], *, return_exceptions: Literal[True]
) -> list[R | ChildFailed | ChildCancelled]: ...
async def await_children(refs: Iterable[ChildRef[Any]], *, return_exceptions: bool = False) -> list[Any]:
    """Wait for many children at linear cost; return their results in the order of ``refs``.

    The first that does not complete, in journal order, is raised at once and the others go on; with
    ``return_exceptions`` all are waited for and errors stand in the list.
    """
    family = (await entered("await_children")).machine.children
    pairs = _found("await_children", family, refs)
    children = [found for _, found in pairs]
    await family.wait_all(children, fail_fast=not return_exceptions)
    if return_exceptions:
        return [_result_or_error(ref) for ref, _ in pairs]
    if (failed := family.first_failed(children)) is not None:
        next(ref for ref, found in pairs if found is failed).result()
    return [family.value(found, ref.workflow, ref._result) for ref, found in pairs]


def as_completed(refs: Iterable[ChildRef[R]]) -> AsyncIterator[ChildRef[R]]:
    """Return an async iterator over ``refs`` as they end, in journal order; those ended already come first.

    >>> async for ref in as_completed(refs):  # doctest: +SKIP
    ...     receipt = await ref
    """
    family = current("as_completed").machine.children
    return InOrderOfEnds(_found("as_completed", family, refs), family.ask)


def _found(function: str, family: Family, refs: Iterable[ChildRef[R]]) -> list[tuple[ChildRef[R], Child]]:
    given: object = refs
    if isinstance(given, ChildRef) or not isinstance(given, Iterable):
        raise TypeError(f"{function}() takes an iterable of refs of children: got {given!r}")
    find = family.find
    return [(ref, find(ref.id if type(ref) is ChildRef else _expect_ref(function, ref).id)) for ref in refs]


def _expect_ref(function: str, ref: ChildRef[R]) -> ChildRef[R]:
    given: object = ref
    if not isinstance(given, ChildRef):  # else no words are made: there may be ten thousand
        expect(f"what {function}() waits for", given, ChildRef, "a ref of a child, as start_child() returns")
    return ref


def _result_or_error(ref: ChildRef[R]) -> R | ChildFailed | ChildCancelled:
    try:
        return ref.result()
    except (ChildFailed, ChildCancelled) as error:
        return error


_DEFAULT = ChildOptions()
_ATTRIBUTES: Codec[dict[str, Any]] = Codec(dict[str, Any], "attributes of a child")


async def _start_and_wait(
    loop: WorkflowLoop, key: str, path: str, flow: Workflow[Any, R], given: bytes, options: ChildOptions
) -> R:
    if loop.stopped:
        await never()
    loop.unstarted -= 1
    family = loop.machine.children
    started = family.start(key, path, flow, given, options)
    try:
        await family.wait(started)
    except asyncio.CancelledError:
        family.cancel(started, path, "its parent stopped waiting")
        raise
    return cast("R", family.value(started, flow.name, flow.result))


def child_options(function: str, options: dict[str, Any], *, beside: Iterable[str] = ("id",)) -> ChildOptions:
    """Return the options of a child that ``function`` was given, checked. ``beside`` are its other ones."""
    if not options:
        return _DEFAULT
    made = with_options(function, _DEFAULT, options, beside=beside)
    if made.attributes is None:
        return made
    # As JSON has them; what no database stores is refused here.
    return replace(made, attributes=_ATTRIBUTES.decode(_ATTRIBUTES.encode(dict(made.attributes))))


def check_flow(function: str, flow: Any) -> Workflow[Any, Any]:
    """Return ``flow`` if it is a workflow's definition. Raises ``DefinitionError``."""
    if isinstance(flow, Workflow):
        return cast("Workflow[Any, Any]", flow)
    raise DefinitionError(f"{function}() takes a workflow's definition: got {flow!r}; decorate it with @workflow")
