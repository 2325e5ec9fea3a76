"""``map_children``: a child for every item, never more than so many at a time.

The rule: an item is pulled only when there is room for its child, and the turn that hears how a child ended
starts the next, so that a batch of ends is one commit. What the map comes to is a decision of the run like others:
a replay under other policies is told so, and does not silently come to something else.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Callable, Coroutine, Iterable, Iterator, Sized
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar, cast

from continuum._core import events as e
from continuum._core.child import Child
from continuum._core.commands import DecideMap
from continuum._core.faults import never
from continuum._core.keys import check_child_key, child_run_id
from continuum._core.loop import WorkflowLoop, running_workflow
from continuum.children import Cancelled, ChildRef, Completed, Failed, Outcome, check_flow, child_options
from continuum.errors import ChildCancelled, ChildFailed, MapFailed
from continuum.policies import ChildOptions, MapPolicy
from continuum.workflow import Workflow, current

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from continuum.children import ChildChanges

__all__ = ["MapResult", "map_children"]

_OWN_OPTIONS = ("id", "concurrency", "min_successful", "tolerate_failures", "rest", "collect")
MOST_NAMED = 1_000  # of the children that decided a map: in its entry, and in a result that collects nothing

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class MapResult(Generic[R]):
    """What ``map_children`` came to.

    ``results`` are those of the completed, ``outcomes`` has one for each item (None: not started, or not ended
    when the map was decided), both in the order of the items; with ``collect=False`` both are empty.
    ``decided_by`` are refs of the children whose ends decided the map, in the order of the journal: the first
    ``min_successful`` that completed, those that did not if there were too many of them, or else all. With
    ``collect=False`` they are at most 1,000, and none for all. The rest are counts.
    """

    results: list[R]
    outcomes: list[Outcome[R] | None]
    decided_by: tuple[ChildRef[R], ...]
    completed: int
    failed: int
    cancelled: int


def map_children(
    flow: Workflow[T, R],
    items: Iterable[T] | AsyncIterable[T],
    *,
    id: Callable[[T], str] | None = None,  # noqa: A002 - the word of start_child
    concurrency: int = 1000,
    min_successful: int | None = None,
    tolerate_failures: int | None = 0,
    rest: Literal["cancel", "abandon"] = "cancel",
    collect: bool = True,
    **options: Unpack[ChildChanges],
) -> Coroutine[Any, Any, MapResult[R]]:
    """Run a child for every item, at most ``concurrency`` at a time, and return what they came to.

    ``items`` may be any iterable with an order of its own (no set) or an async one, which may await activities; an
    item is pulled when there is room. ``id`` names the child of an item; without it ids are derived as those of
    ``start_child`` are. Items of one id and one input have one child, which counts for each of them. The map is
    over when all have ended, as soon as ``min_successful`` have completed, or with more than ``tolerate_failures``
    failed or cancelled (None: any number): then, and if ``min_successful`` cannot be reached any more, it raises
    ``MapFailed``. The children in flight at that time are cancelled, or abandoned: they go on. So they are when
    the wait is cancelled, and when an item cannot be pulled or started: that error is raised, with a note of the
    item's position. With ``collect=False`` no results are kept, and a million items take no memory. Options as in
    ``start_child``.

    >>> done = await map_children(order_flow, orders, concurrency=100)  # doctest: +SKIP
    >>> done.results  # doctest: +SKIP
    """
    stopped = running_workflow()
    if stopped is not None and stopped.stopped:
        return never()
    loop = current("map_children")
    loop.scope()
    checked = check_flow("map_children", flow)
    policy = MapPolicy(concurrency, min_successful, tolerate_failures, rest, collect)
    made = child_options("map_children()", cast("dict[str, Any]", options), beside=_OWN_OPTIONS)
    _check_items(items, policy)
    if id is not None and not callable(id):
        raise TypeError(f"id is a function that gives an item's child id: got {id!r}")
    loop.unstarted += 1
    return _map(loop, checked, items, id, policy, made)


async def _map(
    loop: WorkflowLoop,
    flow: Workflow[Any, R],
    items: Iterable[Any] | AsyncIterable[Any],
    name: Callable[[Any], str] | None,
    policy: MapPolicy,
    options: ChildOptions,
) -> MapResult[R]:
    if loop.stopped:
        await never()
    loop.unstarted -= 1
    return await _Window(loop, flow, items, name, policy, options).run()


def _check_items(items: object, policy: MapPolicy) -> None:
    if isinstance(items, (set, frozenset)):  # another process has them in another order
        raise TypeError("items is a set, which has no order that a replay could repeat; pass sorted(items)")
    if not isinstance(items, (Iterable, AsyncIterable)):
        raise TypeError(f"items is an iterable or an async iterable: got {items!r} of type {type(items).__name__}")
    if policy.min_successful is not None and isinstance(items, Sized) and policy.min_successful > len(items):
        raise ValueError(f"min_successful is {policy.min_successful}, of {len(items)} items")


class _Window(Generic[R]):
    """The children of one map: those in flight, and what became of the others."""

    def __init__(
        self,
        loop: WorkflowLoop,
        flow: Workflow[Any, R],
        items: Iterable[Any] | AsyncIterable[Any],
        name: Callable[[Any], str] | None,
        policy: MapPolicy,
        options: ChildOptions,
    ) -> None:
        self._loop = loop
        self._family = loop.machine.children
        self._scope = loop.scope()  # the task's that waits: whoever pulls an item, its child has the same name
        self._key = self._scope.key(f"map_{flow.name}")
        self._flow = flow
        self._items = items
        self._name = name
        self._policy = policy
        self._options = options
        self._pulling: Iterator[Any] | None = None
        self._exhausted = False
        self._over = False
        self._open: dict[int, tuple[Child, Callable[[], object]]] = {}  # in flight, by position
        self._heard: deque[int] = deque()  # ended, and not counted yet
        self._error: BaseException | None = None  # of the task that pulls
        self._news: asyncio.Future[None] | None = None  # what the map waits for
        self._room: asyncio.Future[None] | None = None  # what the task that pulls waits for
        self._started = 0
        self._completed = self._failed = self._cancelled = 0
        self._outcomes: list[Outcome[R] | None] = []
        self._ends: list[tuple[str, bool]] = []  # key, and whether it completed, in the order of the journal
        self._first_error: ChildFailed | ChildCancelled | None = None

    async def run(self) -> MapResult[R]:
        """Start children and wait until the map is decided."""
        feeder: asyncio.Task[None] | None = None
        try:
            if isinstance(self._items, AsyncIterable):
                feeder = asyncio.create_task(self._feed(self._items))
            else:
                self._pulling = iter(self._items)
            while (why := self._verdict()) is None:
                await self._go_on()
            result = self._decide(why)
        except (asyncio.CancelledError, Exception):
            self._leave("the map that started it has ended")
            raise
        finally:
            self._over = True
            for child, wake in self._open.values():  # else the family and the window hold each other
                if child.outcome is None:
                    child.waiters.remove(wake)
            self._open.clear()
            if feeder is not None:
                feeder.cancel()  # not awaited: what it waits for may never come
        if why in ("all", "enough"):
            return result
        raise MapFailed(result, self._in_words(why)) from self._first_error

    def _verdict(self) -> str | None:
        """Say why the map is over, or None while it is not."""
        policy, lost = self._policy, self._failed + self._cancelled
        if policy.min_successful is not None and self._completed >= policy.min_successful:
            return "enough"
        if policy.tolerate_failures is not None and lost > policy.tolerate_failures:
            return "too_many_failed"
        if not self._exhausted or self._error is not None:
            return None
        if policy.min_successful is not None and self._completed + len(self._open) < policy.min_successful:
            return "too_few"
        return None if self._open else "all"

    async def _go_on(self) -> None:
        """Take the next thing there is: an error, an end, an item; wait if there is none."""
        if self._error is not None:
            raise self._error
        if self._heard:
            self._count(self._heard.popleft())
        elif self._pulling is not None and len(self._open) < self._policy.concurrency:
            self._pull(self._pulling)
        else:
            self._news = self._loop.create_future()
            await self._news

    def _pull(self, items: Iterator[Any]) -> None:
        try:
            item = next(items)
        except StopIteration:
            self._pulling, self._exhausted = None, True
        except Exception as error:
            self._note(error, self._started)
            raise
        else:
            self._start(item)

    async def _feed(self, items: AsyncIterable[Any]) -> None:
        """Pull items that must be awaited, in a task of its own: the map may be decided meanwhile."""
        source: AsyncIterator[Any] | None = None
        try:
            source = aiter(items)
            while True:
                while len(self._open) >= self._policy.concurrency:
                    self._room = self._loop.create_future()
                    await self._room
                try:
                    item = await anext(source)
                except StopAsyncIteration:
                    break
                except Exception as error:
                    self._note(error, self._started)
                    raise
                if self._over:  # the source took the cancellation for something else
                    break
                self._start(item)
            self._exhausted = True
        except (asyncio.CancelledError, Exception) as error:
            if self._over:
                raise
            self._error = error
        finally:
            _wake(self._news)
            close = getattr(source, "aclose", None)
            if close is not None and not self._loop.stopped:
                await close()

    def _start(self, item: Any) -> None:
        at, flow, family = self._started, self._flow, self._family
        try:
            key = family.key(self._scope, flow.name) if self._name is None else check_child_key(self._name(item))
            given = flow.input.encode(item)
            known = family.knows(key)
            child = family.start(key, self._scope.path, flow, given, self._options)
        except Exception as error:
            self._note(error, at)
            raise
        if not known:
            child.fleeting = not self._policy.collect
        self._started += 1
        if self._policy.collect:
            self._outcomes.append(None)
        wake = partial(self._hear, at)
        self._open[at] = child, wake
        if child.outcome is None:
            child.waiters.append(wake)
        else:
            self._hear(at)

    def _hear(self, at: int) -> None:
        child, _ = self._open[at]
        if child.fleeting:  # kept all the same if its ref may be handed out
            completed = isinstance(child.outcome, e.ChildCompleted)
            before = self._completed if completed else self._failed + self._cancelled
            child.fleeting = not self._may_decide(completed, before + 1)
        self._heard.append(at)
        _wake(self._news)

    def _count(self, at: int) -> None:
        """Count a child that has ended, and make room for another."""
        child, _ = self._open.pop(at)
        _wake(self._room)
        collect, completed = self._policy.collect, isinstance(child.outcome, e.ChildCompleted)
        outcome: Outcome[R] | None = None
        if not completed:
            outcome = self._lost(child, at)
        elif collect:
            outcome = Completed(cast("R", self._family.value(child, self._flow.name, self._flow.result)))
        if completed:
            self._completed += 1
        alike = self._completed if completed else self._failed + self._cancelled
        if collect:
            self._outcomes[at] = outcome
        if collect or self._may_decide(completed, alike):
            self._ends.append((child.key, completed))

    def _may_decide(self, completed: bool, alike: int) -> bool:
        """Say whether a child may be one of those that are named, as the ``alike``-th that ended as it has."""
        policy = self._policy
        decides = policy.min_successful is not None or (policy.tolerate_failures is not None and not completed)
        return decides and alike <= MOST_NAMED

    def _lost(self, child: Child, at: int) -> Failed | Cancelled:
        try:
            self._family.value(child, self._flow.name, self._flow.result)
        except (ChildFailed, ChildCancelled) as error:
            lost = error.with_traceback(None)  # which would hold this window
        except Exception as error:  # its key is another child's
            self._note(error, at)
            raise
        else:
            raise AssertionError("the child has completed")
        if self._first_error is None:
            self._first_error = lost
        if isinstance(lost, ChildCancelled):
            self._cancelled += 1
            return Cancelled(lost.reason)
        self._failed += 1
        return Failed(lost)

    def _decide(self, why: str) -> MapResult[R]:
        """Record what the map came to, and let the rest be."""
        collect, all_ = self._policy.collect, why == "all"
        keys = [key for key, completed in self._ends if all_ or completed == (why == "enough")]
        decision = DecideMap(
            self._key,
            why,
            self._started,
            self._completed,
            self._failed,
            self._cancelled,
            () if all_ else tuple(keys[:MOST_NAMED]),
        )
        self._loop.machine.decisions.decide(decision, self._scope.path)
        self._leave("the map that started it was decided")
        if collect and isinstance(self._items, Sized):
            self._outcomes += [None] * (len(self._items) - self._started)
        return MapResult(
            [outcome.value for outcome in self._outcomes if isinstance(outcome, Completed)],
            self._outcomes,
            tuple(self._ref(key) for key in keys) if collect or not all_ else (),
            self._completed,
            self._failed,
            self._cancelled,
        )

    def _leave(self, reason: str) -> None:
        """Cancel or abandon what is in flight."""
        if self._policy.rest == "cancel":
            for child, _ in self._open.values():
                self._family.cancel(child, self._scope.path, reason)

    def _ref(self, key: str) -> ChildRef[R]:
        run_id = child_run_id(self._loop.machine.context.run_id, key)
        return ChildRef(run_id, self._flow.name, self._flow.result, self._flow)

    def _note(self, error: Exception, at: int) -> None:
        error.add_note(f"at item {at} (the first is 0) of map_children({self._flow.name}, ...)")

    def _in_words(self, why: str) -> str:
        policy = self._policy
        told = f"map_children({self._flow.name}): {self._failed} failed and {self._cancelled} cancelled"
        first = "" if self._first_error is None else f"; the first: {self._first_error}"
        if why == "too_many_failed":
            return f"{told} of {self._started} started; tolerate_failures is {policy.tolerate_failures}{first}"
        return (
            f"{told} of {self._started}, and all items are started: min_successful={policy.min_successful} "
            f"cannot be reached, {self._completed} completed{first}"
        )


def _wake(future: asyncio.Future[None] | None) -> None:
    if future is not None and not future.done():
        future.set_result(None)
