"""The operations of a journal in memory: each is atomic, as one statement or transaction of Postgres is.

The rule: nothing here waits, and nobody is told anything; who should hear of it is in what is returned.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

from continuum._core.effects import Message
from continuum._core.entries import TYPES, Entry
from continuum._core.failure import encode_failure
from continuum._core.jsontext import load
from continuum._journal.canceller import LONGEST_GRACE_S, MOST_OVERDUE, request_to_stop
from continuum._journal.cascade import Root, stopped
from continuum._journal.commit import (
    SWEEP_EVERY_S,
    Announcement,
    Beat,
    Claimed,
    Claims,
    End,
    Lease,
    Loaded,
    Mail,
    NewRoot,
    Swept,
    TakenOver,
)
from continuum._journal.deliveries import Sent, kind_and_name, told_apart
from continuum._journal.memory import writing
from continuum._journal.memory.cascade import Cascade, cascade
from continuum._journal.memory.tables import RunRow, Tables, WorkerRow
from continuum.errors import Failure

Said = Mapping[str, Collection[str]]
Listener = Callable[[str, Collection[str]], None]
MOST_MAIL = 900
MOST_DEATHS = 3
MINUTES_10_US = 600_000_000
_POISON = Failure(
    "PoisonRun", f"{MOST_DEATHS} workers died while they tried this run alone; resume it after a fix"
)


class Memory(Tables):
    """One place where runs are kept, for any number of journals. ``listeners`` hear what is said to all."""

    def __init__(self, now_us: Callable[[], int]) -> None:
        super().__init__(now_us)
        self.listeners: list[Listener] = []

    # --- runs

    def start(self, roots: Sequence[NewRoot]) -> set[str]:
        """Insert root runs; return the ids inserted now."""
        started: set[str] = set()
        for root in roots:
            if root.run_id in self.runs:
                continue
            run = RunRow(
                root.run_id,
                root.workflow,
                root.version,
                root.input,
                0,
                self.now_us(),
                root.namespace,
                None if root.attributes is None else load(root.attributes),
                root.trace,
                root.priority,
            )
            self.add(run)
            if root.wakeup_us is None:
                self.arm_now(run)
            else:
                self.arm(run, root.wakeup_us)
            started.add(run.run_id)
        return started

    def claim(self, worker: str | None, definitions: Sequence[tuple[str, int]], limit: int) -> Claims:
        """Lease due runs to a worker that is alive."""
        if self.alive(worker) is None:
            return Claims()
        found: list[RunRow] = []
        for definition in definitions:
            found += self.due(definition, limit - len(found))
        found.sort(key=_wakeup_us)
        for run in found:
            self.give(run, worker)
            run.token += 1
            if run.state == "pending":  # its time has come: it waits for it no more
                run.waiting_for = None
            run.state, run.wakeup_us = "running", None
            run.started_us = run.started_us or self.now_us()
        next_us = [self.next_due_us(definition) for definition in definitions] if len(found) < limit else []
        due_us = min((at_us for at_us in next_us if at_us is not None), default=None)
        due_in_s = None if due_us is None else (due_us - self.now_us()) / 1_000_000
        return Claims((run.claimed() for run in found), due_in_s)

    def load(self, claimed: Sequence[Claimed]) -> list[Loaded]:
        """Read entries and mail of runs, in the order given."""
        return [self._loaded(run) for run in claimed]

    def _loaded(self, claimed: Claimed) -> Loaded:
        run = self.runs.get(claimed.run_id)
        rows = {} if run is None else run.journal.get(claimed.generation, {})
        first = 0 if claimed.generation > 1 else 1
        entries = tuple(rows[number] for number in sorted(rows))
        problem = None
        if sorted(rows) != list(range(first, first + len(rows))):
            problem = f"entries of generation {claimed.generation} are missing"
        elif unknown := next((entry.type for entry in entries if entry.type not in TYPES), None):
            problem = f"an entry of generation {claimed.generation} has the unknown type {unknown!r}"
        elif claimed.generation > 1 and (not entries or entries[0].type != "run_started"):
            problem = f"generation {claimed.generation} does not begin with its start"
        return Loaded(claimed.run_id, entries, self.mail([claimed.run_id]).get(claimed.run_id, ()), problem)

    def flush(self, worker: str | None, groups: Sequence[writing.Group]) -> writing.Written:
        """Write groups of commits, each whole or nothing of it."""
        return writing.flush(self, worker, groups)

    def cancel(self, run_id: str, reason: str) -> Cascade | None:
        """End a run and every live run below it. None: somebody's lock holds it up."""
        return self._cascade([stopped(run_id, reason)])

    def request_cancel(self, run_id: str, reason: str, grace_s: float) -> str | None:
        """Ask a live run to stop by a deadline; return its state as it was, None: there is no such run."""
        run = self.runs.get(run_id)
        if run is None or not run.live:
            return None if run is None else run.state
        due_us = self.now_us() + int(min(max(grace_s, 0.0), LONGEST_GRACE_S) * 1_000_000)
        asked = run_id in self.cancellations and run_id not in self.timeouts
        if run_id in self.cancellations:
            before_us, said = self.cancellations[run_id]
            self.cancellations[run_id] = min(before_us, due_us), said if asked else reason
        else:
            self.cancellations[run_id] = due_us, reason
        if not asked:
            self.timeouts.discard(run_id)
            message = request_to_stop(run_id, reason)
            self.put(run_id, message.type, message.key, message.payload)
        return run.state

    def overdue(self) -> Cascade:
        """Cancel runs whose deadline has passed, but what somebody's lock holds."""
        now, done, roots = self.now_us(), Cascade(), 0
        due = sorted((due_us, run_id) for run_id, (due_us, _) in self.cancellations.items() if due_us <= now)
        live = {run_id for _, run_id in due if run_id in self.runs and self.runs[run_id].live}
        for run_id in [run_id for _, run_id in due if run_id not in live]:
            del self.cancellations[run_id]
        for run_id in [run_id for _, run_id in due if run_id in live]:
            if run_id not in self.cancellations:  # it fell with one above
                continue
            if roots < MOST_OVERDUE and (one := self.cancel(run_id, self.cancellations[run_id][1])):
                roots += 1
                done.take(one)
        return done

    def _cascade(self, roots: Sequence[Root]) -> Cascade | None:
        ids = [root.run_id for root in roots]
        tree = [self.runs[run_id] for run_id in ids if run_id in self.runs]
        tree += [run for run_id in ids for level in self.descendants(run_id) for run in level]
        if any(run.live and run.run_id in self.locked for run in tree):
            return None
        return cascade(self, roots, {})

    def send(self, messages: Sequence[Message]) -> Sent:
        """Put messages into inboxes of live runs, but those that were sent before."""
        found: dict[str, tuple[str | None, bool]] = {}
        for message in messages:
            run = self.runs.get(message.run_id)
            found[message.run_id] = (None, False) if run is None else (run.state, run.live)
        for message in messages:
            if not found[message.run_id][1]:
                continue
            if message.delivery_id is not None:
                named = (message.run_id, message.delivery_id)
                if named in self.deliveries:
                    continue
                self.deliveries[named] = None
                self.delivered[named] = kind_and_name(message)
            self.put(message.run_id, message.type, message.key, message.payload)
        had, taken = told_apart(messages, self.delivered)
        missed = {name: state for name, (state, live) in found.items() if not live and name not in had}
        return Sent(tuple(name for name, (_, live) in found.items() if live), missed, taken)

    def resume(self, run_id: str) -> RunRow | None:
        """Make a parked run claimable again; None: it is not parked."""
        run = self.runs.get(run_id)
        if run is None or run.state != "parked":
            return None
        run.state, run.error, run.deaths, run.suspected = "suspended", None, 0, False
        self.arm_now(run)
        return run

    def ends(self, run_ids: Collection[str]) -> dict[str, End | None]:
        """Return how runs ended, None for live ones; those that do not exist are missing."""
        rows = [self.runs[run_id] for run_id in run_ids if run_id in self.runs]
        return {run.run_id: None if run.live else End(run.state, run.result, run.error) for run in rows}

    def answers(self, keys: Collection[str]) -> dict[str, bytes | End | None]:
        """Return the answers under those keys whose runs exist, or how the run ended; None: neither yet."""
        found: dict[str, bytes | End | None] = {}
        for key in keys:
            run_id, _, delivery_id = key.partition("\0")
            for name, end in self.ends([run_id]).items():
                answer = self.deliveries.get((name, delivery_id))
                found[key] = end if answer is None else answer
        return found

    # --- mail and hints

    def mail(self, run_ids: Collection[str]) -> dict[str, tuple[Mail, ...]]:
        """Read the inboxes of some runs."""
        boxes = {run_id: self.inbox[run_id] for run_id in run_ids if run_id in self.inbox}
        return {run_id: tuple(box[number] for number in sorted(box)[:MOST_MAIL]) for run_id, box in boxes.items()}

    def residents_with_mail(self, worker: str | None) -> list[str]:
        """Return the runs of a worker that have mail."""
        held = self.held.get(worker or "", {})
        return [run_id for run_id in self.inbox if run_id in held]

    def say(self, run_ids: Collection[str], said: Said) -> list[str]:
        """Make runs due that have mail and nobody to read it (POKE), and tell all; return those in use."""
        again: list[str] = []
        ready: dict[str, None] = {}
        for run_id in run_ids:
            run = self.runs.get(run_id)
            if run is None or not self.wakes(run):
                continue
            if run_id in self.locked:
                again.append(run_id)
                continue
            self.arm_now(run)
            ready[run.definition] = None
        for kind, names in {**said, "ready": [*said.get("ready", ()), *ready]}.items():
            if names:
                for listener in list(self.listeners):
                    listener(kind, names)
        return again

    # --- leases

    def release(self, worker: str | None, leases: Sequence[Lease]) -> dict[str, str]:
        """Give up leases that are still held; return the definition of each run released."""
        released: dict[str, str] = {}
        for run in self._held(worker, leases):
            if run.run_id not in self.locked:
                self.give(run, None)
                self.arm_now(run)
                released[run.run_id] = run.definition
        return released

    def reclaim(self, worker: str | None, leases: Sequence[Lease]) -> list[Claimed]:
        """Take own leases anew under higher tokens; one that somebody's lock holds is left out."""
        runs = [run for run in self._held(worker, leases, or_later=True) if run.run_id not in self.locked]
        for run in runs:
            run.token += 1
        return [run.claimed() for run in runs]

    def leases(self, worker: str | None) -> list[Lease]:
        """Return all leases of a worker."""
        return [Lease(run.run_id, run.token) for run in self.held.get(worker or "", {}).values()]

    def _held(self, worker: str | None, leases: Iterable[Lease], *, or_later: bool = False) -> list[RunRow]:
        rows = [(self.runs.get(lease.run_id), lease.token) for lease in leases]
        return [
            run
            for run, token in rows
            if run is not None
            and run.owner is not None
            and run.owner == worker
            and (run.token == token or (or_later and run.token > token))
        ]

    def register(self, worker_id: str, lease_s: float) -> None:
        """Announce a worker under an id that was never used."""
        if worker_id in self.workers:
            raise ValueError(f"worker id {worker_id!r} was used before")
        now = self.now_us()
        self.workers[worker_id] = WorkerRow(worker_id, int(lease_s * 1_000_000), now, now)

    def deregister(self, worker_id: str | None) -> None:
        """Forget a worker and what it announced."""
        self.workers.pop(worker_id or "", None)

    def beat(self, worker_id: str | None, suspect: str | None, reconnected: bool) -> Beat:
        """Take a sign of life, and tell how others are."""
        now = self.now_us()
        worker = self.alive(worker_id)
        if worker is not None:
            if reconnected or worker.silent(now):
                worker.connected_us = now
            worker.beat_us, worker.suspect = now, suspect
        others = [row for row in self.workers.values() if row is not worker and row.dead_us is None]
        deaths = sum(
            row.dead_us is not None and row.dead_us > now - MINUTES_10_US for row in self.workers.values()
        )
        silent = sum(row.silent(now) for row in others)
        count = len(others) - silent + (worker is not None)
        overdue = any(due_us <= now for due_us, _ in self.cancellations.values())
        return Beat(worker is not None, now, count, deaths, bool(silent), overdue, self._is_unswept(SWEEP_EVERY_S))

    def clear_suspicion(self, worker: str | None, run_ids: Collection[str]) -> set[str]:
        """Forgive suspects that a worker holds."""
        held = self.held.get(worker or "", {})
        runs = [held[run_id] for run_id in run_ids if run_id in held and run_id not in self.locked]
        forgiven = {run.run_id for run in runs if run.suspected or run.deaths}
        for run in runs:
            run.suspected, run.deaths = False, 0
        return forgiven

    def take_over(self, worker_id: str | None, judges: bool = True) -> tuple[TakenOver, set[str]]:
        """Declare silent workers dead and release the runs of dead ones; also return the definitions due now."""
        now, worker = self.now_us(), self.alive(worker_id) if judges else None
        dead: list[str] = []
        if worker is not None and not worker.silent(now) and worker.connected_us <= now - worker.lease_us:
            dead = [row.worker_id for row in self.workers.values() if row.dead_us is None and row.silent(now)]
        for name in dead:
            self.workers[name].dead_us = now
        released, parked, ready = 0, list[str](), set[str]()
        gone = [name for name in self.held if self.alive(name) is None]
        for run in [run for name in gone for run in self.held[name].values() if run.run_id not in self.locked]:
            released += 1
            self._take(run, parked, ready)
        held = bool(self.held.get(worker_id or ""))
        return TakenOver(released, tuple(parked), tuple(dead), held), ready

    def _take(self, run: RunRow, parked: list[str], ready: set[str]) -> None:
        owner = self.workers.get(run.owner or "")
        run.deaths += owner is not None and owner.suspect == run.run_id
        self.give(run, None)
        run.token += 1
        run.suspected = True
        if run.deaths >= MOST_DEATHS:
            run.state, run.error, run.wakeup_us = "parked", encode_failure(_POISON), None
            parked.append(run.run_id)
        else:
            run.error = None
            self.arm_now(run)
            ready.add(run.definition)

    def sweep(self, every_s: float, budget: int) -> tuple[Swept, set[str]] | None:
        """Do one part of the slow sweep; also return the definitions that are due now."""
        if not self._is_unswept(every_s):
            return None
        self.swept_us = self.now_us()
        walked = sorted(run_id for run_id in self.inbox if run_id > self.sweep_cursor)[:budget]
        armed, dropped, ready = 0, 0, set[str]()
        for run_id in walked:
            run = self.runs.get(run_id)
            if run is None or not run.live:
                dropped += len(self.inbox.pop(run_id))
            elif run_id not in self.locked and self.wakes(run):
                self.arm_now(run)
                armed += 1
                ready.add(run.definition)
        finished = len(walked) < budget
        self.sweep_cursor = "" if finished else walked[-1]
        if not finished:
            self.swept_us = None
        return Swept(armed, dropped, finished), ready

    def _is_unswept(self, every_s: float) -> bool:
        return self.swept_us is None or self.swept_us <= self.now_us() - int(every_s * 1_000_000)

    # --- definitions

    def announce(self, worker_id: str | None, definitions: Sequence[Announcement]) -> None:
        """Write down which definitions a worker has."""
        for found in definitions:
            named = (found.kind, found.name, found.version)
            self.announced.pop((*named, worker_id or ""), None)  # the newest comes last
            self.announced[(*named, worker_id or "")] = found

    def definitions(self) -> dict[Announcement, int]:
        """Return every definition ever announced, as it was last, and how many live workers have it."""
        now = self.now_us()
        last: dict[tuple[str, str, int], Announcement] = {}
        counts: dict[tuple[str, str, int], int] = {}
        for (kind, name, version, worker_id), found in self.announced.items():
            worker = self.alive(worker_id)
            named = (kind, name, version)
            last[named] = found
            counts[named] = counts.get(named, 0) + (worker is not None and not worker.silent(now))
        return {last[named]: counts[named] for named in sorted(last)}


def entry_rows(run: RunRow, generation: int | None) -> Iterable[tuple[int, int, Entry]]:
    """Return generation, number and entry of one generation of a run, or of all, in order."""
    for number in sorted(run.journal):
        if generation in (None, number):
            yield from ((number, seq, run.journal[number][seq]) for seq in sorted(run.journal[number]))


def _wakeup_us(run: RunRow) -> int:
    return run.wakeup_us or 0
