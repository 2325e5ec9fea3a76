"""What follows a commit: activities begin, children are born, a run goes on, leaves or is read anew.

The rule: only here does anything outside a run see what its turn decided, and only after the journal said that
it is durable. Whatever else the journal said, the copy in memory is wrong and is dropped.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any, assert_never

from continuum._core import commands as c
from continuum._core.effects import NewRun
from continuum._core.failure import encode_failure
from continuum._core.jsontext import dump, load
from continuum._engine.activities import Activities
from continuum._engine.hooks import EngineHooks
from continuum._engine.inquiries import Inquiries
from continuum._engine.mailroom import Mailroom
from continuum._engine.resident import Resident, TurnTaken
from continuum._engine.residents import Residents
from continuum._engine.taking import next_generation
from continuum._engine.telling import Telling
from continuum._engine.turns import Turns
from continuum._journal.commit import (
    KEEP,
    Cancel,
    Claimed,
    Commit,
    Committed,
    Complete,
    Continue,
    Fail,
    Fenced,
    Keep,
    Outcome,
    Park,
    Passivate,
    Rejected,
    Stale,
    Status,
    Undone,
    Unknown,
)
from continuum._journal.render import retry_text
from continuum.errors import Failure

logger = logging.getLogger("continuum.engine")
MOST_FAILURES = 3  # of the engine itself with one run, in a row; then it is parked


class Aftermath:
    """Acts on the journal's answers. ``reload`` is called with runs whose copy is wrong, and whether in doubt."""

    def __init__(
        self,
        *,
        turns: Turns,
        residents: Residents,
        activities: Activities,
        mailroom: Mailroom,
        inquiries: Inquiries,
        hooks: EngineHooks,
        telling: Telling,
        reload: Callable[[Claimed, bool], None],
        now: Callable[[], float],
    ) -> None:
        self.draining = False
        self.got_on: Callable[[Resident], None]
        self.falls_due: Callable[[int], None]
        self._turns = turns
        self._residents = residents
        self._activities = activities
        self._mailroom = mailroom
        self._inquiries = inquiries
        self._hooks = hooks
        self._telling = telling
        self._reload = reload
        self._now = now
        self._failures: dict[str, int] = {}

    def after(self, taken: TurnTaken, outcome: Outcome | None) -> None:
        """Act on what became of a turn; None: there was nothing to write."""
        run, commit = taken.run, taken.commit
        run.committing = False
        if commit is not None and commit.claimed:
            self._residents.promised -= commit.claimed
        if type(outcome) is Committed:
            self._committed(taken, outcome)
            return
        match outcome:
            case None:
                self._go_on(taken)
            case _ if run.gone:
                return
            case Fenced():
                # Not worth a line each: a cascade may fence thousands, and whoever watches is told.
                logger.debug("run %r is another worker's now, or was cancelled; this copy is dropped", run.run_id)
                self._hooks.tell("continuum.run.fenced", run_id=run.run_id, workflow=run.claimed.workflow)
                self._residents.drop(run)
            case Undone():
                self._undone(taken)
            case Stale():
                logger.warning("this copy of run %r is behind its journal; it is read anew", run.run_id)
                self._read_anew(run, doubtful=False)
            case Unknown():
                if commit is not None:
                    self._telling.doubt(taken)
                    for child in commit.children[: commit.claimed]:
                        self._reload(
                            _born(run.claimed, child, 0), True
                        )  # perhaps born, and then leased to this worker
                self._read_anew(run, doubtful=True)
            case Rejected(error) if commit is not None and isinstance(commit.status, Park):
                logger.error("run %r cannot even be parked: %s", run.run_id, error)
                self._residents.drop(run)
            case Rejected(error):
                self.park(run, Failure("Rejected", f"Postgres refuses what this run writes: {error}"))
            case Committed():
                raise AssertionError("dealt with above")
            case _:
                assert_never(outcome)

    def failed(self, run: Resident, error: Exception) -> None:
        """Deal with an error of the engine's own in a run's turn: read it anew, and after some times park it."""
        if run.gone:
            return
        count = self._failures[run.run_id] = self._failures.get(run.run_id, 0) + 1
        if count < MOST_FAILURES or run.committing:
            self._read_anew(run, doubtful=True)  # a commit may be under way, or have made it another generation
        else:
            self.park(run, Failure(type(error).__name__, f"the engine failed with this run: {error}"))

    def park(self, run: Resident, failure: Failure) -> None:
        """Set a run aside with what is wrong; nothing else of it is written."""
        logger.error("run %r is parked: %s", run.run_id, failure)
        parked = TurnTaken(run)
        parked.commit = run.standing(Park(encode_failure(failure)))
        parked.fault = failure
        run.committing = True
        self._turns.submit(parked)

    def _committed(self, taken: TurnTaken, outcome: Committed) -> None:
        run, commit, hooks = taken.run, taken.commit, self._hooks
        assert commit is not None
        if self._failures:
            self._failures.pop(run.run_id, None)
        if commit.children:  # first of all, for they are leased to this worker whatever becomes of their parent
            self._bear(run, commit, outcome)
        if hooks.points is not None:
            hooks.points.at("turn.committed", run.run_id)
        if hooks.listeners:
            self._telling.committed(taken, outcome)
        if run.gone:
            return  # its activities are another's by now
        run.seq += len(commit.entries)
        if run.unjudged and commit.entries:
            self.got_on(run)
        if commit.consumed:
            self._mailroom.consumed(run, commit.consumed)
        if commit.status is KEEP:
            self._go_on(taken)
        elif type(commit.status) is Complete:
            self._residents.drop(run)
        else:
            self._change(taken, commit.status)

    def _change(self, taken: TurnTaken, status: Status) -> None:
        """Follow a run into another standing."""
        run = taken.run
        match status:
            case Keep():
                self._go_on(taken)
            case Continue(wakeup_us=int(due_us)):
                self._residents.drop(run)
                self.falls_due(due_us)
            case Continue() as status:
                self._activities.drop(run)
                next_generation(run, status)
                self._turns.schedule(run)
            case Complete() | Fail() | Cancel():
                self._residents.drop(run)
            case Passivate(wakeup_us):
                self._residents.drop(run)
                if wakeup_us is not None:
                    self.falls_due(wakeup_us)
            case Park():
                if taken.fault is not None and taken.turns:
                    logger.error("run %r is parked: %s", run.run_id, taken.fault)
                self._residents.drop(run)
            case _:
                assert_never(status)

    def _go_on(self, taken: TurnTaken) -> None:
        run = taken.run
        if run.gone:
            return
        for request in taken.requests:
            if type(request) is c.RunActivity:
                self._start(run, request)
            else:
                self._ask(run, request)
        if taken.unsure:
            self._inquiries.compare(run, taken.unsure)
        if run.arrivals:
            self._turns.schedule(run)
        elif run.resting and run.at_rest:
            run.rested()
        if run.more_mail:
            self._mailroom.want(run)

    def _start(self, run: Resident, request: c.RunActivity) -> None:
        if self.draining:
            run.owed = True
            return
        if self._hooks.points is not None:
            self._hooks.points.at("activity.begin", run.run_id)
        assert run.machine is not None
        definition: Any = run.machine.activities.asked[request.key][0]
        attempt = run.attempts.pop(request.key, 1) if run.attempts else 1
        self._activities.start(run, request, definition, attempt)

    def _ask(self, run: Resident, request: c.Request) -> None:
        match request:
            case c.RunActivity():
                self._start(run, request)
            case c.CancelActivity(key):
                self._activities.cancel(run, key)
            case c.AwaitChild(key, run_id):
                self._inquiries.ask(run, key, run_id)
            case c.StartTimer() | c.CancelTimer():
                pass  # done when the turn was taken
            case _:
                assert_never(request)

    def _bear(self, run: Resident, commit: Commit, outcome: Committed) -> None:
        """Take in the children that were leased to this worker at birth; look into those that existed."""
        existed = set(outcome.existed)
        told = {message.run_id for message in commit.messages}
        parent, at_us, now, tells = run.claimed, outcome.at_us, self._now(), bool(self._hooks.listeners)
        for child in commit.children[: commit.claimed]:
            if child.run_id in existed:
                continue
            born = Resident(_born(parent, child, at_us), now)
            born.loading = False
            self._residents.add(born)
            if tells:
                self._hooks.tell("continuum.run.started", run_id=child.run_id, workflow=child.workflow)
            self._turns.schedule(born)
            if child.run_id in told:  # the hint came before the child was here
                self._mailroom.want(born)
        if existed:
            self._inquiries.compare(run, [child for child in commit.children if child.run_id in existed])

    def _undone(self, taken: TurnTaken) -> None:
        """Write what fell only because another fell: an ended child alone, through its parent's inbox."""
        run = taken.run
        if taken.outcome is not None and not taken.ended:
            run.committing = True
            self._residents.promised += taken.births
            self._turns.submit(taken)
        else:
            self._read_anew(run, doubtful=False)  # its machine has heard of what did not happen

    def _read_anew(self, run: Resident, *, doubtful: bool) -> None:
        claimed = run.claimed
        self._residents.drop(run)
        self._reload(claimed, doubtful)


def _born(parent: Claimed, child: NewRun, at_us: int) -> Claimed:
    """Return a child as it was leased to this worker when it was inserted."""
    options = child.options
    return Claimed(
        child.run_id,
        1,  # its token
        1,  # its generation
        child.workflow,
        child.version,
        child.depth,
        at_us,
        child.input,
        False,  # nobody suspects it
        0,
        None if options.retry is None else retry_text(options.retry),
        parent.namespace,
        _merged(parent.attributes, options.attributes) if options.attributes else parent.attributes,
        parent.trace,
    )


def _merged(inherited: bytes | None, own: Mapping[str, Any]) -> bytes:
    """Return a child's attributes as the database merges them: its own beside, and instead of, its parent's."""
    return dump({**({} if inherited is None else load(inherited)), **own})
