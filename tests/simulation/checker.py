"""What must hold whatever happens, looked at after every write and at the end.

The rule: it knows the promises and the tables, and nothing of how the engine keeps them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Sequence
from typing import Any

from continuum._core import commands as c
from continuum._core import events as e
from continuum._core.entries import Entry, event_of_entry, fields_of
from continuum._core.failure import decode_failure
from continuum._core.jsontext import load
from continuum._core.machine import Machine, RunContext, Turn
from continuum._core.retry import decode_retry
from continuum._journal.commit import Cancel, Commit, Committed, Complete, Fail, Keep, Mail
from continuum._journal.memory.cascade import Cascade
from continuum._journal.memory.store import MOST_DEATHS, Memory
from continuum._journal.memory.tables import RunRow
from continuum._journal.memory.writing import Group, Written
from continuum.definitions import Definitions
from tests.simulation.endings import (
    Bounds,
    Broken,
    check_attempts,
    check_closed,
    check_continued,
    check_descendants,
    check_followed,
)
from tests.simulation.flows import LAST, MIXED_UP, simulated
from tests.simulation.maps import check_maps

__all__ = ["Broken", "Watched"]

OUTCOMES = ("child_completed", "child_failed", "child_cancelled")


class Watched(Memory):
    """A journal in memory that is looked at whenever it is written to."""

    def __init__(self, now_us: Callable[[], int], definitions: Definitions) -> None:
        super().__init__(now_us)
        self._definitions = definitions
        self._writers: dict[tuple[str, int], str] = {}
        self._ends: dict[str, int] = {}  # how many entries a run had when it ended
        self._born, self._bounds = Counter[str](), Bounds()
        self._unread: dict[int, str] = {}  # messages that nobody has taken, and whose they are
        self._taken: set[int] = set()
        self._published: dict[str, list[int]] = {}  # generation and number of the state that each run shows
        self.away_us = 0  # when the last outage ended, or will
        self._named: dict[str, str | None] = {}  # the suspect that each worker tries
        self._deaths: Counter[str] = Counter()  # of workers that had named a run
        self._unsafe: list[str] = []  # runs claimed since something was written that waited for the disk
        self.costs: Counter[str] = Counter()

    # --- after every write

    def flush(self, worker: str | None, groups: Sequence[Group]) -> Written:
        owners = {commit.run_id: self._standing(commit.run_id) for group in groups for commit in group}
        mail = {run_id: dict(self.inbox.get(run_id, {})) for run_id in owners}
        done = super().flush(worker, groups)
        for group, outcomes in zip(groups, done.outcomes, strict=True):
            committed = [isinstance(outcome, Committed) for outcome in outcomes or ()]
            if any(committed) and not all(committed):
                raise Broken(f"of a group only a part was written: {group}")
            if any(committed):
                for commit, outcome in zip(group, outcomes or (), strict=True):
                    assert isinstance(outcome, Committed)
                    self._check_commit(worker, commit, outcome, owners[commit.run_id], mail[commit.run_id], group)
        for cascade in done.cascades:
            self._check_cascade(cascade)
        return done

    def cancel(self, run_id: str, reason: str) -> Cascade | None:
        done = super().cancel(run_id, reason)
        if done is not None:
            self._check_cascade(done)
        return done

    def _check_cascade(self, done: Cascade) -> None:
        """Nobody escapes."""
        for tree in done.trees:
            for run_id, run in self.runs.items():
                if run.live and (run_id == tree or run_id.startswith(f"{tree}/")):
                    raise Broken(f"run {run_id!r} is {run.state}, and {tree!r} was cancelled with all below it")

    def _standing(self, run_id: str) -> tuple[str | None, int, bool, int]:
        run = self.runs.get(run_id)
        return (None, 0, False, 0) if run is None else (run.owner, run.token, run.live, run.generation)

    def _check_commit(
        self,
        worker: str | None,
        commit: Commit,
        outcome: Committed,
        before: tuple[str | None, int, bool, int],
        mail: dict[int, Mail],
        group: Group,
    ) -> None:
        self.costs["commits"] += 1
        owner, token, live, generation = before
        if not live:
            raise Broken(f"run {commit.run_id!r} was written after it had ended: {commit}")
        if owner != worker or token != commit.token:
            raise Broken(
                f"{worker!r} wrote run {commit.run_id!r} under {commit.token}, which is {owner!r}'s, {token}"
            )
        if self._writers.setdefault((commit.run_id, commit.token), worker or "") != worker:
            raise Broken(f"two workers wrote run {commit.run_id!r} under token {commit.token}")
        if generation != commit.generation:
            raise Broken(f"run {commit.run_id!r} is in generation {generation}, not in {commit.generation}")
        if not isinstance(commit.status, Keep):
            self._deaths.pop(commit.run_id, None)
        check_descendants(self.runs, commit)
        check_continued(self.runs[commit.run_id], commit)
        self._bounds.check(self, commit, outcome)
        check_maps(self.runs, commit)
        self._check_consumed(commit, mail)
        self._check_published(commit)
        self._check_children(commit, outcome)
        if commit.run_id.count("/") and isinstance(commit.status, Complete | Fail | Cancel):
            self._check_edge(commit, outcome, group)

    def _check_consumed(self, commit: Commit, mail: dict[int, Mail]) -> None:
        """Whatever leaves the inbox is in the journal, once."""
        written = Counter((entry.type, entry.key) for entry in commit.entries)
        for number in commit.consumed:
            if number in self._taken:
                raise Broken(f"message {number} of run {commit.run_id!r} was taken twice")
            self._taken.add(number)
            self._unread.pop(number, None)
            found = mail[number]
            if found.generation not in (None, commit.generation):
                continue
            if written[found.type, found.key]:
                written[found.type, found.key] -= 1
            elif not (found.type in OUTCOMES and self._knows_outcome(commit, found)):
                raise Broken(f"message {found} left the inbox of run {commit.run_id!r} and is in no journal")

    def _knows_outcome(self, commit: Commit, mail: Mail) -> bool:
        """Tell whether the run has heard of the end, gave the child up, or was refused another one of its key."""
        return _tells_end(_entries(self.runs[commit.run_id]), mail.key, (*OUTCOMES, "child_start_failed"))

    def _check_published(self, commit: Commit) -> None:
        """What a run shows goes forward with its journal; a first turn that left no entry may be taken again."""
        if commit.published is not None:
            before, shown = self._published.get(commit.run_id, []), load(commit.published)
            if shown < before:
                raise Broken(f"run {commit.run_id!r} shows {shown}, and has shown {before}")
            self._published[commit.run_id] = shown

    def _check_children(self, commit: Commit, outcome: Committed) -> None:
        started = {entry.key for entry in commit.entries if entry.type == "child_started"}
        for child in commit.children:
            if child.key not in started:
                raise Broken(f"child {child.run_id!r} came without its parent's entry")
            if child.run_id not in outcome.existed:
                self._born[child.run_id] += 1
        if missing := started - {child.key for child in commit.children}:
            raise Broken(f"run {commit.run_id!r} says that it started {missing}, and there was no child")

    def _check_edge(self, commit: Commit, outcome: Committed, group: Group) -> None:
        parent_id, _, key = commit.run_id.rpartition("/")
        parent = self.runs.get(parent_id)
        told = any(message.run_id == parent_id and message.key == key for message in commit.messages)
        beside = any(other.run_id == parent_id and _tells_end(other.entries, key) for other in group)
        if parent is None or not parent.live or told or beside or _tells_end(_entries(parent), key):
            return
        raise Broken(f"run {commit.run_id!r} ended, and nobody tells its parent")

    def put(self, run_id: str, kind: str, key: str, payload: bytes, generation: int | None = None) -> None:
        super().put(run_id, kind, key, payload, generation)
        self._unread[self.messages] = run_id

    def sweep(self, every_s: float, budget: int) -> Any:
        before = {run_id for run_id in self.inbox if self.runs[run_id].live}
        done = super().sweep(every_s, budget)
        if lost := before - set(self.inbox):
            raise Broken(f"the sweep dropped mail of live runs: {lost}")
        return done

    def claim(self, worker: str | None, definitions: Sequence[tuple[str, int]], limit: int) -> Any:
        found = super().claim(worker, definitions, limit)
        self.costs["claims"] += bool(found)
        self.costs["claimed"] += len(found)
        self._unsafe += [run.run_id for run in found]
        return found

    def beat(self, worker_id: str | None, suspect: str | None, reconnected: bool) -> Any:
        found = super().beat(worker_id, suspect, reconnected)
        if found.alive:
            self._named[worker_id or ""] = suspect
        return found

    def clear_suspicion(self, worker: str | None, run_ids: Collection[str]) -> set[str]:
        forgiven = super().clear_suspicion(worker, run_ids)
        for run_id in forgiven:
            self._deaths.pop(run_id, None)
        return forgiven

    def take_over(self, worker_id: str | None, judges: bool = True) -> Any:
        """Nobody judges who was away himself, and only deaths of those that had named a run park it."""
        done, ready = super().take_over(worker_id, judges)
        judge = self.workers.get(worker_id or "")
        if done.workers and (judge is None or self.away_us > self.now_us() - judge.lease_us):
            raise Broken(
                f"{worker_id!r} declared {done.workers} dead, and was not connected for a lease time itself"
            )
        for name in done.workers:
            if (run_id := self._named.get(name)) is not None:
                self._deaths[run_id] += 1
        for run_id in done.parked:
            if self._deaths[run_id] < MOST_DEATHS:
                raise Broken(f"run {run_id!r} is parked, and only {self._deaths[run_id]} workers died of it")
            del self._deaths[run_id]
        return done, ready

    def crash(self) -> list[str]:
        """Take back claims that no later write has made durable, for they wait for no disk; return their runs."""
        lost = [self.runs[run_id] for run_id in dict.fromkeys(self._unsafe)]
        self._unsafe.clear()
        for run in lost:
            if run.owner is not None:
                self.give(run, None)
                run.token -= 1
                run.state = "suspended"
                if run.token == 0:
                    run.state, run.started_us = "pending", None
                self.arm_now(run)
        return [run.run_id for run in lost]

    def durable(self) -> None:
        """Note that something was written that waits for the disk."""
        self._unsafe.clear()

    def note_ends(self) -> None:
        """Look which runs have ended since; those that had are as they were, and the others have their mail."""
        for run_id, run in self.runs.items():
            count = len(_entries(run))
            if not run.live and self._ends.setdefault(run_id, count) != count:
                raise Broken(f"run {run_id!r} had {self._ends[run_id]} entries when it ended, and has {count}")
        for number, run_id in list(self._unread.items()):
            if not self.runs[run_id].live:
                del self._unread[number]
            elif number not in self.inbox.get(run_id, ()):
                raise Broken(f"message {number} of run {run_id!r} was lost")

    # --- an activity is being called

    def check_cause(self, run_id: str, key: str) -> None:
        """Raise unless the journal, as it stands or as it stood, asks for the activity with this argument."""
        run = self.runs.get(run_id)
        if run is None:
            raise Broken(f"an activity of run {run_id!r}, which does not exist")
        for generation in sorted(run.journal.keys() | {1}, reverse=True):
            entries = _journal(run, generation)
            if any(_is_call(entry, key) for entry in entries):
                return
            for count in range(len(entries), -1, -1):
                if self._asks(run, generation, entries[:count], key):
                    return
        raise Broken(f"activity {key!r} of run {run_id!r} began before its cause was durable")

    def _asks(self, run: RunRow, generation: int, entries: Sequence[Entry], key: str) -> bool:
        machine, turn = self.replayed(run, generation, entries)
        try:
            requests = [*turn.commands, *machine.outstanding()] if machine is not None else []
        finally:
            if machine is not None:
                machine.discard()
        return any(isinstance(found, c.RunActivity) and _names(found.input, key) for found in requests)

    def replayed(self, run: RunRow, generation: int, entries: Sequence[Entry]) -> tuple[Machine | None, Turn]:
        """Replay a generation from its journal; no machine if not even its start is there."""
        if generation == 1:
            started: e.Event = e.RunStarted(run.started_us or 0, run.input)
        elif entries:
            started, entries = event_of_entry(entries[0]), entries[1:]
        else:
            return None, Turn(())
        assert isinstance(started, e.RunStarted)
        flow = self._definitions.workflows[run.workflow, run.version]
        retry = None if run.retry is None else decode_retry(run.retry)
        machine = Machine(flow, RunContext(run.run_id, generation, run.depth, retry=retry))
        return machine, machine.replay(started, entries)

    # --- at the end

    def check_end(self) -> None:
        """Look at everything once more, when nothing goes on any more."""
        self.note_ends()
        for run in self.runs.values():
            if run.live:
                raise Broken(f"run {run.run_id!r} is {run.state} for ever: {run.error or run.waiting_for or ''!r}")
            check_closed(self.runs, run)
            self._check_shown(run)
            texts = [run.result or b"", *(entry.payload for entry in _entries(run))]
            if any(MIXED_UP.encode() in text for text in texts):
                raise Broken(f"run {run.run_id!r} took another child's end for that of its own")
            self._check_journal(run)
            check_attempts(run)
            if run.depth and self._born[run.run_id] != 1:
                raise Broken(f"child {run.run_id!r} was born {self._born[run.run_id]} times")
        if self.held and any(self.held.values()):
            raise Broken(f"leases are left: {self.held}")

    def _check_shown(self, run: RunRow) -> None:
        """A run that has completed has shown its last state, and answered no update twice."""
        shown = None if run.published is None else load(run.published)
        if run.state == "completed" and run.workflow == simulated.name and shown != [run.generation, LAST]:
            raise Broken(f"run {run.run_id!r} has completed and shows {shown}")
        answers = Counter(entry.key for entry in _entries(run) if entry.type == "update_answered")
        if any(count > 1 for count in answers.values()):
            raise Broken(f"run {run.run_id!r} answered an update twice: {answers}")
        for update_id in answers:
            if self.deliveries.get((run.run_id, update_id)) is None:
                raise Broken(f"run {run.run_id!r} answered update {update_id!r}, and who asks finds no answer")

    def _check_journal(self, run: RunRow) -> None:
        for generation in range(2, run.generation + 1):
            if 0 not in run.journal.get(generation, {}):
                raise Broken(f"generation {generation} of run {run.run_id!r} has no start")
        for generation in range(1, run.generation + 1):
            entries = _journal(run, generation)
            ends: set[str] = set()
            for entry in entries:
                if entry.type == "child_started":
                    ends.discard(entry.key)  # what was heard before was of an earlier generation's child
                elif entry.type in OUTCOMES and entry.key in ends:
                    raise Broken(f"run {run.run_id!r} heard of the end of {entry.key!r} twice")
                elif entry.type in OUTCOMES:
                    ends.add(entry.key)
            machine, turn = self.replayed(run, generation, entries)
            assert machine is not None
            closing = machine.closing
            machine.discard()
            if turn.fault is not None:
                raise Broken(f"generation {generation} of run {run.run_id!r} does not replay: {turn.fault}")
            self._check_closing(run, generation, closing)

    def _check_closing(self, run: RunRow, generation: int, closing: c.Closing | None) -> None:
        if generation < run.generation:
            check_followed(run, generation, closing)
            return
        match run.state, closing:
            case "completed", c.CompleteRun(result):
                same = load(result) == load(run.result or b"null")
            case "failed", c.FailRun(failure):
                same = str(failure) == str(decode_failure(run.error or b"{}"))
            case (
                "cancelled",
                None | c.CancelRun() | c.CompleteRun() | c.FailRun() | c.ContinueRun() | c.RetryRun(),
            ):
                same = True  # cut off at any point
            case _:
                same = False
        if not same:
            raise Broken(
                f"run {run.run_id!r} is {run.state} with {run.result or run.error!r}; a replay: {closing}"
            )


def _tells_end(entries: Sequence[Entry], key: str, kinds: Sequence[str] = OUTCOMES) -> bool:
    """Tell whether a parent knows from these how a child ended, or has given it up at its timeout."""
    return any(
        (entry.type, entry.key) == ("timer_fired", f"{key}.timeout")
        or (entry.key == key and entry.type in kinds)
        or (entry.key == key and entry.type == "child_cancel_requested" and _at_timeout(entry))
        for entry in entries
    )


def _at_timeout(entry: Entry) -> bool:
    return bool(fields_of(entry)["reason"] == "timeout")  # a carried one may have passed before the first turn


def _entries(run: RunRow) -> list[Entry]:
    return [entry for rows in run.journal.values() for entry in rows.values()]


def _journal(run: RunRow, generation: int) -> list[Entry]:
    rows = run.journal.get(generation, {})
    return [rows[seq] for seq in sorted(rows)]


def _is_call(entry: Entry, key: str) -> bool:
    return entry.type in ("activity_completed", "activity_failed") and _names(entry.payload, key, "input")


def _names(text: bytes, key: str, member: str | None = None) -> bool:
    """Tell whether an activity's input has ``key`` as its argument of that name."""
    if key.encode() not in text:
        return False
    given = load(text)
    given = given[member] if member is not None else given
    return key in (given.values() if isinstance(given, dict) else given)
