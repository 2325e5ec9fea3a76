"""An environment for tests of workflows: the real engine and client, a journal in memory, and time that jumps.

The rule: what a test sees is what production does, but for three things: nothing is stored, what the test replaced
is not called, and time passes only for a test that waits, as far as the next thing that happens.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from datetime import UTC, datetime, timedelta
from types import ModuleType, TracebackType
from typing import Any, ParamSpec, TypeVar, cast, overload

from continuum._engine.settings import WorkerSettings
from continuum.activity import Activity
from continuum.client import Client
from continuum.definitions import Definition, Definitions
from continuum.errors import RunNotFound
from continuum.policies import Duration, duration, expect, refuse_unknown
from continuum.runs import RunHandle
from continuum.testing.opened import US, Opened
from continuum.testing.passing import Bounds
from continuum.testing.replacing import Call, key_of
from continuum.workflow import Workflow

__all__ = ["WorkflowEnvironment"]

I = TypeVar("I")  # noqa: E741 - input, as R is result
R = TypeVar("R")
P = ParamSpec("P")
OWN = ("now", "replay_every_step", "seed", "stuck_after", "max_jumps")
SETTINGS = ("retry", "start_to_close", "max_activities", "threads", "max_child_depth", "blocked_after")
OURS = ("lease", "heartbeat", "poll", "claim_batch", "cache", "passivate_after", "drain")


class WorkflowEnvironment:
    """Runs the workflows of ``sources``, modules or definitions, in memory, for the block of an ``async with``.

    ``now`` is the time at which it begins (default: the real time). With ``replay_every_step`` every run leaves
    memory whenever everybody waits, and is replayed when it goes on. ``seed`` decides what chance decides, such as
    the spread of retries. ``RunStuck`` ends a wait while the same activities or planned actions are under way for
    ``stuck_after`` (real seconds or ``timedelta``; None: never), or when time has jumped ``max_jumps`` times.
    ``settings`` are a ``Worker``'s: ``retry``, ``start_to_close``, ``max_activities``, ``threads``,
    ``max_child_depth``, ``blocked_after``.

    >>> async with WorkflowEnvironment([flows]) as env:                       # doctest: +SKIP
    ...     env.replace(send_mail, lambda address: "sent")
    ...     run = await env.start(approval_flow, request)
    ...     env.at(timedelta(days=2), lambda: run.signal("approve", Approval(True)))
    ...     assert await run.result() == "approved"
    ...     assert env.now - env.started == timedelta(days=2)

    Time passes while the test waits for a run or for ``sleep``: it jumps to the next thing that is due, never
    while an activity is under way. Every run that has ended is replayed once, before its result is given or at the
    end of the block, and ``AssertionError`` says if its code does not decide again what it decided. ``RunParked``
    is raised for a run that cannot go on, ``RunStuck`` for waiting for what can never come.
    """

    def __init__(
        self,
        sources: Iterable[ModuleType | Definition],
        *,
        now: datetime | None = None,
        replay_every_step: bool = False,
        seed: int = 0,
        stuck_after: Duration | None = 60,
        max_jumps: int = 100_000,
        **settings: Any,
    ) -> None:
        if isinstance(sources, (str, bytes, ModuleType)) or not isinstance(sources, Iterable):
            raise TypeError(
                f"WorkflowEnvironment([flows]) takes a list of modules or definitions: got {sources!r}"
            )
        if now is not None and now.tzinfo is None:
            raise ValueError(f"now= needs a time zone, for workflows know none but UTC: got {now!r}")
        if fixed := sorted(set(settings) & set(OURS)):
            raise TypeError(f"{fixed[0]}= is the environment's own: it has one worker and a time that jumps")
        refuse_unknown("WorkflowEnvironment", set(settings) - set(SETTINGS), {*OWN, *SETTINGS})
        WorkerSettings.resolve(settings, {})
        expect("max_jumps", max_jumps, int, "a whole number")
        after_s = None if stuck_after is None else duration("stuck_after", stuck_after).total_seconds()
        self._bounds = Bounds(after_s, max_jumps)
        self.started: datetime = (now or datetime.now(UTC)).astimezone(UTC)
        """When the environment began, in its own time."""
        self._definitions = Definitions(sources)
        self._definitions.prepare()
        self._settings, self._seed, self._passivating = settings, seed, replay_every_step
        self._planned: list[tuple[int, Callable[[], object]]] = []
        self._replaced: list[tuple[Any, Callable[..., Any]]] = []
        self._opened: Opened | None = None
        self._ended = False
        self._opens_itself = False  # the fixture does, in the loop of the test that uses it

    async def __aenter__(self) -> WorkflowEnvironment:
        self._opens_itself = True
        self._open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        opened, self._ended = self._opened, True
        if opened is None:
            return
        try:
            if error is None:
                opened.check_all()
        finally:
            await opened.close()

    # --- runs

    @property
    def client(self) -> Client:
        """A client of the environment, for what has no shortcut here."""
        return self._open().client

    @overload
    async def start(
        self, flow: Workflow[None, R], input: None = None, *, id: str | None = None
    ) -> RunHandle[R]: ...
    @overload
    async def start(self, flow: Workflow[I, R], input: I, *, id: str | None = None) -> RunHandle[R]: ...
    async def start(self, flow: Any, input: Any = None, *, id: str | None = None) -> RunHandle[Any]:  # noqa: A002
        """Start a run as ``Client.start`` does. Raises ``LookupError`` for a workflow that was not given."""
        opened = self._open()
        if isinstance(flow, Workflow):
            known = cast("Workflow[Any, Any]", flow)
            opened.stand_ins.definitions.workflow(known.name, known.version)
        return await opened.client.start(cast("Any", flow), input, id=id)

    async def until_waiting(self, run: RunHandle[Any]) -> str:
        """Let happen what happens without time passing; return what the run then waits for, in words.

        ``""`` if it has ended. Raises ``RunNotFound``, and ``RunParked`` if it cannot go on.
        """
        opened = self._open()
        await opened.passing.wait(None)
        if run.id not in opened.memory.runs:
            raise RunNotFound(run.id)
        if (verdict := opened.serving.verdict(run.id)) is not None:
            raise verdict
        return opened.serving.waiting_for(run.id)

    async def restart(self, sources: Iterable[ModuleType | Definition] | None = None) -> None:
        """Let the worker crash and start another one, which replays every run; ``sources`` are a deploy.

        Activities under way run again. Time does not pass.
        """
        opened = self._open()
        opened.check_ended()
        if sources is not None:
            definitions = Definitions(sources)
            definitions.prepare()
            opened.stand_ins.deploy(definitions)
        await opened.restart()

    # --- what stands in

    @overload
    def replace(self, definition: Activity[P, R], by: Callable[P, R | Awaitable[R]]) -> None: ...
    @overload
    def replace(self, definition: Workflow[None, R], by: Callable[[], R | Awaitable[R]]) -> None: ...
    @overload
    def replace(self, definition: Workflow[I, R], by: Callable[[I], R | Awaitable[R]]) -> None: ...
    def replace(self, definition: Any, by: Callable[..., Any]) -> None:
        """Let ``by``, plain or async, be called in the place of an activity or a workflow, from now on.

        It is called on the test's event loop, with the arguments by place. What it returns is the outcome and what
        it raises the failure: of the activity's attempt, which is retried as ever, or of the run. Raises
        ``ValueError`` for a workflow that has runs under way.
        """
        self._check_open()
        if self._opened is None:
            key_of(definition)
            self._replaced.append((definition, by))
        else:
            self._opened.replace(definition, by)

    @overload
    def calls(self, definition: Activity[..., R]) -> list[Call[R]]: ...
    @overload
    def calls(self, definition: Workflow[Any, R]) -> list[Call[R]]: ...
    def calls(self, definition: Any) -> list[Call[Any]]:
        """Return the calls of an activity, or of what replaces a workflow, as they began; each attempt is one."""
        key = key_of(definition)
        return [] if self._opened is None else list(self._opened.stand_ins.calls.get(key, ()))

    # --- time

    @property
    def now(self) -> datetime:
        """The environment's time."""
        return self.started if self._opened is None else self.started + self._opened.inner.elapsed_us * US

    def at(self, when: timedelta | datetime, action: Callable[[], object]) -> None:
        """Plan ``action`` for a time: a ``timedelta`` counts from ``started``. It may return an awaitable.

        Time passes only while the test waits. What it raises is raised where the test waits. Raises
        ``ValueError`` for a time that has passed.
        """
        self._check_open()
        at = self.started + when if isinstance(when, timedelta) else when
        if at < self.now:
            raise ValueError(f"at({when!r}, …): that time has passed, it is {self.now:%Y-%m-%d %H:%M:%S} already")
        at_us = (at - self.started) // US
        if self._opened is None:
            self._planned.append((at_us, action))
        else:
            self._opened.passing.plan(at_us, action)

    def after(self, delay: Duration, action: Callable[[], object]) -> None:
        """Plan ``action`` for so long after now; see ``at``."""
        self.at(self.now + duration("delay", delay), action)

    async def sleep(self, delay: Duration) -> None:
        """Let time pass, with all that happens meanwhile and at its end.

        An activity, or what replaces one, may use it too: it then takes that long, and time may jump meanwhile.
        """
        opened = self._open()
        until = opened.inner.elapsed_us + duration("delay", delay) // US
        await opened.passing.wait(None, until_us=until)

    # --- life

    def _open(self) -> Opened:
        self._check_open()
        if not self._opens_itself:
            raise RuntimeError("open it: async with WorkflowEnvironment(...) as env")
        if self._opened is None:
            try:
                asyncio.get_running_loop()
            except RuntimeError:
                raise RuntimeError("an environment needs a running asyncio event loop; trio has none") from None
            opened = Opened(
                self._definitions, self.started, self._settings, self._seed, self._passivating, self._bounds
            )
            for definition, by in self._replaced:
                opened.stand_ins.replace(definition, by)
            for at_us, action in self._planned:
                opened.passing.plan(at_us, action)
            self._opened = opened
        self._opened.check_loop()
        return self._opened

    def _check_open(self) -> None:
        if self._ended:
            raise RuntimeError("this environment has ended with its block: make another one")

    def _close_at_once(self) -> None:
        """End without the test's loop, which does not run any more; raise what nobody was told of."""
        opened, self._ended = self._opened, True
        if opened is not None:
            opened.close_at_once()
