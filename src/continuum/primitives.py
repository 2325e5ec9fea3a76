"""What every workflow may call: time, chance, side effects, patches, conditions, updates, a state, a log.

They work only while a workflow's code runs, and raise ``WorkflowMisuse`` elsewhere.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import hashlib
import inspect
import logging
import random as chance
import uuid
from collections.abc import Callable, Coroutine, MutableMapping
from contextvars import copy_context
from typing import Any, NoReturn, TypeVar, cast

from continuum._core.codec import ANY, Codec
from continuum._core.commands import ApplyPatch, RecordSideEffect
from continuum._core.decisions import Decisions
from continuum._core.entries import fields_of, value_in
from continuum._core.failure import capture, decode_failure, remote
from continuum._core.faults import Unwind
from continuum._core.keys import check_child_key
from continuum._core.loop import WATCH, running_workflow
from continuum._core.updates import Handler
from continuum.errors import DecodeError, EncodeError, SideEffectFailed, WorkflowMisuse
from continuum.policies import Duration, duration
from continuum.updates import Update
from continuum.workflow import current, entered

__all__ = [
    "continue_as_new",
    "log",
    "now",
    "on_update",
    "patched",
    "random",
    "set_state",
    "side_effect",
    "uuid4",
    "wait_condition",
]

I = TypeVar("I")  # noqa: E741 - input, as R is result
R = TypeVar("R")
T = TypeVar("T")

_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)


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
    except (KeyboardInterrupt, Unwind):
        raise
    except BaseException as error:  # noqa: BLE001 - journaled, and raised as a replay will raise it
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


def set_state(value: Any, /) -> None:
    """Let people see ``value`` as the run's state: ``describe().published``, with no worker running, and later.

    It goes with the commit of this turn, the last one of a turn counts, and it stays until another is set, also
    when the run has continued as new or ended. It leaves no entry. Its type is what the workflow declares as
    ``state``, else plain JSON. Raises ``EncodeError`` for a value that does not fit.

    >>> set_state(Progress(done=3, of=10))  # doctest: +SKIP
    """
    loop = current("set_state")
    loop.scope()
    loop.machine.decisions.publish(loop.machine.program.state.encode(value))


def on_update(
    update: Update[I, R],
    handler: Callable[[I], Coroutine[Any, Any, R]],
    /,
    *,
    validator: Callable[[I], None] | None = None,
) -> None:
    """Answer updates with ``handler`` from now on; those that came before are handled now, in their order.

    Each one is handled in a task of its own, which may await whatever workflows do; what it returns is the answer,
    what it raises fails the update and not the run. ``validator`` is a plain function that looks at the input
    first and decides nothing: what it raises refuses the update, and it returns None. Raises ``WorkflowMisuse``
    for an update that the workflow does not declare.

    >>> on_update(set_address, change_address, validator=known_street)  # doctest: +SKIP
    """
    loop = current("on_update")
    loop.scope()
    if not isinstance(update, Update):
        raise TypeError(f"on_update() takes an Update first: got {update!r}")
    if not inspect.iscoroutinefunction(handler):
        raise TypeError(f"update {update.name!r} is handled by an `async def`: got {handler!r}")
    if validator is not None and (not callable(validator) or inspect.iscoroutinefunction(validator)):
        raise TypeError(f"the validator of update {update.name!r} is a plain function: got {validator!r}")
    machine = loop.machine
    problem = machine.program.undeclared(update.name)
    if problem is not None:
        raise WorkflowMisuse(f"{problem}; declare it: @workflow(updates=[…])")
    machine.updates.handle(Handler(update, handler, validator, copy_context()))


async def wait_condition(predicate: Callable[[], object], *, timeout: Duration | None = None) -> None:
    """Wait until ``predicate()`` is true; it is asked whenever the workflow's code has run.

    ``timeout`` (a ``timedelta`` or seconds) is a durable timer; past it ``TimeoutError`` is raised.
    """
    conditions = (await entered("wait_condition")).machine.conditions
    if timeout is None:
        await conditions.wait(predicate)
        return
    async with asyncio.timeout(duration("timeout", timeout).total_seconds()):
        await conditions.wait(predicate)


class _Log(logging.LoggerAdapter[logging.Logger]):
    """A logger for workflow code: silent while a replay repeats what was logged before; adds ``run_id``."""

    def isEnabledFor(self, level: int) -> bool:  # noqa: N802 - logging's name
        loop = running_workflow()
        if loop is not None and (loop.discarded or loop.machine.replaying):
            return False
        return super().isEnabledFor(level)

    def process(self, msg: Any, kwargs: MutableMapping[str, Any]) -> tuple[Any, MutableMapping[str, Any]]:
        loop = running_workflow()
        if loop is not None:
            kwargs["extra"] = {**(kwargs.get("extra") or {}), "run_id": loop.machine.context.run_id}
        return msg, kwargs


log = _Log(logging.getLogger("continuum.workflow"), {})
