"""What is said after a commit, gathered and sent as one operation a moment later; see ``_journal/hints.py``."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterable
from contextlib import suppress
from typing import TYPE_CHECKING

from continuum._journal.backoff import Backoff
from continuum._journal.commit import Cancel, Commit, Complete, Continue, Fail, Passivate
from continuum._journal.memory.cascade import Cascade
from continuum._journal.memory.store import Memory
from continuum.errors import DatabaseUnreachable

if TYPE_CHECKING:
    from continuum._journal.memory.journal import Wire

AGAIN_S = 0.2


class MemoryHints:
    """Gathers hints and sends them; arms runs that have mail and no worker (POKE)."""

    def __init__(self, wire: Wire, memory: Memory, here: Callable[[str, Collection[str]], None]) -> None:
        self._wire = wire
        self._memory = memory
        self._here = here
        self._runs: dict[str, None] = {}
        self._said: dict[str, dict[str, None]] = {}
        self._some = asyncio.Event()

    def mail(self, near: Collection[str], far: Iterable[str]) -> None:
        """Note runs that have mail: ``near`` with this worker, which is told now, ``far`` with another or none."""
        far = list(far)
        self.arm(near)
        self.arm(far)
        self.say("wake", far)
        if near:
            self._here("wake", list(near))

    def arm(self, run_ids: Iterable[str]) -> None:
        """Note runs that may have mail and nobody to read it."""
        self._runs.update(dict.fromkeys(run_ids))
        if self._runs:
            self._some.set()

    def say(self, kind: str, names: Iterable[str]) -> None:
        """Note something to be told to all."""
        if found := dict.fromkeys(names):
            self._said.setdefault(kind, {}).update(found)
            self._some.set()

    def committed(self, commit: Commit) -> None:
        """Note what others should know of a commit that is durable."""
        match commit.status:
            case Passivate() | Continue(wakeup_us=int()):
                self.arm([commit.run_id])
            case Complete() | Fail() | Cancel() if "/" not in commit.run_id:
                self.say("ended", [commit.run_id])
            case _:
                pass
        self.say("answered", [commit.run_id] if commit.answers else ())
        self.say("ready", (f"{kid.workflow}:{kid.version}" for kid in commit.children[commit.claimed :]))
        self.say("tasks", (task.queue for task in commit.tasks))

    def doubtful(self, commit: Commit) -> None:
        """Note what others should know of a commit if it is durable; if not, it does no harm."""
        self.arm((commit.run_id, *(message.run_id for message in commit.messages)))
        self.say("ready", (f"{kid.workflow}:{kid.version}" for kid in commit.children))
        self.say("ended", [commit.run_id] if isinstance(commit.status, Complete | Fail | Cancel) else ())
        self.say("answered", [commit.run_id] if commit.answers else ())
        self.say("tasks", (task.queue for task in commit.tasks))

    def cascade(self, done: Cascade) -> None:
        """Note what others should know of a cascade."""
        self.say("ended", done.ended)
        self.say("fenced", done.owners)
        if done.told:
            self.mail((), done.told)

    async def run(self) -> None:
        """Send what is noted until cancelled."""
        backoff = Backoff()
        while True:
            await self._some.wait()
            try:
                await self._send()
            except DatabaseUnreachable:
                await backoff.pause()
            else:
                backoff.reset()

    async def last(self) -> None:
        """Send what is still noted when the journal closes."""
        if self._some.is_set():
            with suppress(DatabaseUnreachable):
                await self._send()

    async def _send(self) -> None:
        self._some.clear()
        runs, self._runs = self._runs, {}
        said, self._said = self._said, {}
        try:
            again = await self._wire(
                "poke", self._memory.say, list(runs), {kind: list(x) for kind, x in said.items()}
            )
        except DatabaseUnreachable:  # said again: perhaps it was heard, perhaps not
            self.arm(runs)
            for kind, names in said.items():
                self.say(kind, names)
            raise
        if again:
            asyncio.get_running_loop().call_later(AGAIN_S, self.arm, again)
