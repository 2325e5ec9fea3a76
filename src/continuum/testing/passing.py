"""How time passes in an environment: it jumps, when everybody waits.

The rule: time stands still but for a test that waits for a run or for a time. It never jumps while an activity or
something planned is under way; then it passes as it really does, and is seen to only when something falls due.
What is planned for a time happens before what runs have due then, and a test that sleeps until then wakes last.
"""

from __future__ import annotations

import asyncio
import heapq
import inspect
import time
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager
from contextvars import Context, ContextVar
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any, Protocol

from continuum.testing.loop import SteppedLoop

SHOWN = 5  # things under way that are named
GRACE = 8  # rounds of the test's loop in which nothing happens, before everybody is taken to wait
Action = Callable[[], object]


@dataclass(frozen=True, slots=True, eq=False)
class UnderWay:
    """Something under way, in words, and since when by the real clock."""

    what: str
    since_s: float = field(default_factory=time.monotonic)

    def __str__(self) -> str:
        return f"{self.what}, under way for {time.monotonic() - self.since_s:.1f} s"


class Doing:
    """Something under way in the test's loop: an activity, or a planned action. It rests while it waits."""

    __slots__ = ("action", "owner", "resting")

    def __init__(self, owner: Passing, action: UnderWay | None = None) -> None:
        self.owner = owner
        self.action = action
        self.resting = 0

    def context(self) -> Context:
        """Return an empty context in which this is known."""
        made = Context()
        made.run(DOING.set, self)
        return made


DOING: ContextVar[Doing | None] = ContextVar("continuum_testing_doing", default=None)


class Waiter:
    """Somebody who waits in ``future``: for ``run_id`` to end, until ``until_us``, with neither for a halt."""

    __slots__ = ("answered", "doing", "future", "run_id", "until_us")

    def __init__(
        self, doing: Doing | None, run_id: str, until_us: int | None, answered: Callable[[], bool] | None
    ) -> None:
        self.doing = doing
        self.run_id = run_id
        self.until_us = until_us
        self.answered = answered
        self.future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

    def fail(self, error: BaseException) -> None:
        """Raise ``error`` where somebody waits."""
        if not self.future.done():
            self.future.set_exception(error)


class World(Protocol):
    """What the passing of time needs to know of the worker."""

    def threads_busy(self) -> bool:
        """Tell whether an activity runs in a thread."""
        ...

    def next_due_us(self) -> int | None:
        """Return when the next thing of a run is due, in elapsed time; None if nothing ever is."""
        ...

    def came_to_rest(self) -> bool:
        """Act on everybody waiting; return whether there was something to do."""
        ...

    def time_came(self) -> bool:
        """Have runs taken up that sleep and are due; return whether there are any."""
        ...

    def trouble(self) -> BaseException | None:
        """Return what went wrong with the worker itself."""
        ...

    def verdict(self, run_id: str) -> BaseException | None:
        """Return why waiting for a run is in vain though there is time, if it is."""
        ...

    def stuck(self, run_id: str, why: str = ..., hints: str = ...) -> BaseException:
        """Return the error of waiting for a run when nothing can come any more."""
        ...

    def under_way(self) -> list[UnderWay]:
        """Return the activities that are under way."""
        ...


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a test waits for at most: ``stuck_after_s`` real seconds for the same things under way, and jumps."""

    stuck_after_s: float | None
    max_jumps: int


class Passing:
    """Lets time pass for one environment. All of it happens in callbacks of ``host``, the test's loop."""

    def __init__(self, host: asyncio.AbstractEventLoop, inner: SteppedLoop, world: World, bounds: Bounds) -> None:
        self._host, self._inner, self._world, self._bounds = host, inner, world, bounds
        self._bound: asyncio.TimerHandle | None = None
        self._bounded: frozenset[object] = frozenset()  # what has been under way since that began
        self._jumps = 0  # since the test began to wait
        self._waiters: dict[Waiter, None] = {}
        self._doing: set[Doing] = set()
        self._actions: list[tuple[int, int, Action]] = []
        self._planned = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._looking: asyncio.Handle | None = None
        self._flowing: asyncio.TimerHandle | None = None
        self._still = 0  # rounds in which nothing has happened
        self._ended = False
        self.failed: BaseException | None = None  # what something planned has raised
        inner.stirred = inner.rested = self.look_soon

    # --- what others do

    def stir(self) -> None:
        """Take note that something happens."""
        self._still = 0
        self.look_soon()

    def plan(self, at_us: int, action: Action) -> None:
        """Do something at a time."""
        self._planned += 1
        heapq.heappush(self._actions, (at_us, self._planned, action))
        self.stir()

    async def wait(
        self, what: Awaitable[Any] | None, *, run_id: str = "", until_us: int | None = None, answered: Any = None
    ) -> Any:
        """Wait, and let time pass for that. With ``what`` until that has come."""
        __tracebackhide__ = True
        doing = DOING.get()
        waiter = Waiter(doing if doing is not None and doing.owner is self else None, run_id, until_us, answered)
        coming = None if what is None else asyncio.ensure_future(what)
        if coming is not None:
            coming.add_done_callback(lambda came: _hand_over(came, waiter.future))
        self._waiters[waiter] = None
        if waiter.doing is not None:
            waiter.doing.resting += 1
        else:
            self._jumps = 0
        self.stir()
        try:
            return await waiter.future
        finally:
            if waiter.doing is not None:
                waiter.doing.resting -= 1
            del self._waiters[waiter]
            if coming is not None:
                coming.cancel()
            self._still = 0

    @contextmanager
    def doing(self) -> Generator[Doing]:
        """Let no time jump for the block."""
        made = Doing(self)
        self._doing.add(made)
        try:
            yield made
        finally:
            self._doing.discard(made)
            self.look_soon()

    def end(self) -> list[asyncio.Task[None]]:
        """Let time stand still for ever; return what is under way of what was planned, cancelled."""
        self._ended = True
        for handle in (self._looking, self._flowing, self._bound):
            if handle is not None:
                handle.cancel()
        tasks = list(self._tasks)
        if not self._host.is_closed():
            for task in tasks:
                task.cancel()
        return tasks

    def fail_all(self, error: BaseException) -> None:
        """Raise ``error`` wherever somebody waits."""
        for waiter in list(self._waiters):
            waiter.fail(error)

    # --- looking whether everybody waits

    def look_soon(self) -> None:
        """Look in the next round of the test's loop."""
        if self._looking is None and not self._ended and not self._host.is_closed():
            self._looking = self._host.call_soon(self._look, context=Context())

    def _look(self) -> None:
        self._looking = None
        if self._ended or not self._inner.at_rest:
            return
        if (trouble := self._world.trouble() or self.failed) is not None:
            if self._waiters:
                self.fail_all(trouble)
                self.failed = None
            return
        if any(self._comes(waiter) for waiter in self._waiters) or self._still < GRACE:
            self._still += 1
            self.look_soon()
            return
        if self._flowing is not None:
            self._flowing.cancel()
            self._flowing = None
        if self._start_actions():
            return
        if self._world.threads_busy() or any(not doing.resting for doing in self._doing):
            self._flow()
            return
        if self._bound is not None:
            self._bound.cancel()
            self._bound = None
        if self._fire_due() or self._world.came_to_rest():
            self.look_soon()
        else:
            self._everybody_waits()

    def _comes(self, waiter: Waiter) -> bool:
        """Tell whether what somebody waits for has come and is on its way there."""
        return waiter.future.done() or (waiter.answered is not None and waiter.answered())

    def _everybody_waits(self) -> None:
        halts = [waiter for waiter in self._waiters if not waiter.run_id and waiter.until_us is None]
        if halts:
            self._wake(halts)
            return
        if not self._waiters:
            return
        for waiter in self._waiters:
            if waiter.run_id and (verdict := self._world.verdict(waiter.run_id)) is not None:
                waiter.fail(verdict)
        if any(waiter.future.done() for waiter in self._waiters):
            return
        due_us, now_us = self._next_us(), self._inner.elapsed_us
        sleeping = [waiter for waiter in self._waiters if waiter.until_us is not None]
        wakes_us = min((waiter.until_us for waiter in sleeping if waiter.until_us is not None), default=None)
        if wakes_us is not None and (due_us is None or wakes_us < due_us):
            self._inner.elapsed_us = max(now_us, wakes_us)
            self._wake([waiter for waiter in sleeping if waiter.until_us == wakes_us])
        elif due_us is not None:
            self._jump(due_us)
        else:
            self._nothing_can_come()

    def _nothing_can_come(self) -> None:
        """Tell those first who may still help the others."""
        inner = [waiter for waiter in self._waiters if waiter.doing is not None]
        for waiter in inner or list(self._waiters):
            waiter.fail(self._world.stuck(waiter.run_id))

    def _wake(self, waiters: list[Waiter]) -> None:
        for waiter in waiters:
            if not waiter.future.done():
                waiter.future.set_result(None)
        self.stir()

    # --- letting it pass

    def _next_us(self) -> int | None:
        due = [self._world.next_due_us(), self._actions[0][0] if self._actions else None]
        return min((at for at in due if at is not None), default=None)

    def _jump(self, at_us: int) -> None:
        """Let it be ``at_us``, and let happen what is due then."""
        inner = self._inner
        self._jumps += 1
        if self._jumps > self._bounds.max_jumps:
            self._jumps = 0
            self._give_up(f"has not ended within max_jumps={self._bounds.max_jumps:,} jumps of time")
            return
        inner.elapsed_us = max(inner.elapsed_us, at_us)
        if not self._start_actions() and not self._fire_due():
            inner.elapsed_us += 1  # nothing was due after all: never stand on one spot
            self.look_soon()

    def _fire_due(self) -> bool:
        due_us = self._world.next_due_us()
        if due_us is None or due_us > self._inner.elapsed_us:
            return False
        told, found = self._world.time_came(), self._inner.fire()
        return told or found

    def _flow(self) -> None:
        """Let time pass as it really does until something is due, since something is under way."""
        self._bound_it()
        due_us = self._next_us()
        if due_us is None or not self._waiters:
            return
        if all(not waiter.run_id and waiter.until_us is None for waiter in self._waiters):
            return
        really_s = min(max(0.0, (due_us - self._inner.elapsed_us) / 1_000_000), 1e6)
        self._flowing = self._host.call_later(really_s, self._flowed, due_us, context=Context())

    def _bound_it(self) -> None:
        """Give up if the same things are under way for too long; that timers fire meanwhile does not count."""
        under_way = frozenset([*self._doing, *self._world.under_way()])
        if self._bounds.stuck_after_s is None or (self._bound is not None and under_way == self._bounded):
            return
        if self._bound is not None:
            self._bound.cancel()
        self._bounded = under_way
        self._bound = self._host.call_later(self._bounds.stuck_after_s, self._stood_still, context=Context())

    def _stood_still(self) -> None:
        self._bound = None
        if self._ended or not self._waiters:
            return
        if frozenset([*self._doing, *self._world.under_way()]) != self._bounded:
            self._bound_it()
            return
        self._give_up(f"has not gone on for stuck_after={self._bounds.stuck_after_s:g} s of real time")

    def _give_up(self, why: str) -> None:
        outer = [waiter for waiter in self._waiters if waiter.doing is None]
        for waiter in outer or list(self._waiters):
            waiter.fail(self._world.stuck(waiter.run_id, why, self.under_way()))

    def under_way(self) -> str:
        """Say in words what is under way, a line for each."""
        found = [*self._world.under_way(), *[doing.action for doing in self._doing if doing.action is not None]]
        found.sort(key=lambda one: one.since_s)
        lines = [f"\n  {one}" for one in found[:SHOWN]]
        return "".join(lines) + (f"\n  and {len(found) - SHOWN} more" if len(found) > SHOWN else "")

    def _flowed(self, due_us: int) -> None:
        self._flowing = None
        if not self._ended:
            self._jump(due_us)

    def _start_actions(self) -> bool:
        """Begin what is planned for now."""
        started = False
        while self._actions and self._actions[0][0] <= self._inner.elapsed_us:
            _, _, action = heapq.heappop(self._actions)
            doing = Doing(self, UnderWay(f"planned action {_name(action)}"))
            self._doing.add(doing)
            task = self._host.create_task(self._act(doing, action), context=doing.context())
            if not task.done():
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
            started = True
        return started

    async def _act(self, doing: Doing, action: Action) -> None:
        try:
            value = action()
            if inspect.isawaitable(value):
                await value
        except Exception as error:  # noqa: BLE001 - it is raised where the test waits
            self.failed = self.failed or error
        finally:
            self._doing.discard(doing)
            self.stir()


def _name(action: Action) -> str:
    code = getattr(inspect.unwrap(action), "__code__", None)
    name = str(getattr(action, "__qualname__", action))
    return f"{name} ({PurePath(code.co_filename).name}:{code.co_firstlineno})" if code is not None else name


def _hand_over(came: asyncio.Future[Any], future: asyncio.Future[Any]) -> None:
    if came.cancelled() or future.done():
        if not came.cancelled():
            came.exception()  # it was looked at
        return
    if (error := came.exception()) is not None:
        future.set_exception(error)
    else:
        future.set_result(came.result())
