"""Turns: what has happened to a run goes into its machine, what it decided comes out as a commit.

The rule: nothing here waits, and nothing it makes is known to anybody before the commit is durable. Several events
that have arrived make several turns and one commit, in the order they came.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import chain
from typing import Any, TypeVar

from continuum._core import commands as c
from continuum._core import events as e
from continuum._core.effects import Effects, NewRun, effects
from continuum._core.ends import is_only_noted
from continuum._core.entries import Entry, entry_of_child, entry_of_event, event_of_entry
from continuum._core.failure import encode_failure
from continuum._core.faults import Divergence, Fault, Forbidden
from continuum._core.machine import Machine, RunContext, Turn
from continuum._core.retry import decode_retry
from continuum._engine.resident import Arrival, Resident, TurnTaken
from continuum._engine.timers import Timers
from continuum._journal.commit import KEEP, Cancel, Commit, Complete, Continue, Fail, Park, Status
from continuum.definitions import Definitions
from continuum.errors import DecodeError, Failure

_T = TypeVar("_T")
TIMEOUT = ".timeout"  # how the key of a timer ends that bounds a child, and no other's
MOST_WORDS = 200  # characters of an error, in what a run waits for
MOST_ROWS = 400  # of one commit and those that go with it: less than a batch, so that neighbours travel along


class Taker:
    """Takes turns. ``claimable`` says how many of a number of new children this worker may take at once."""

    def __init__(
        self, definitions: Definitions, timers: Timers, claimable: Callable[[int], int], max_child_depth: int
    ) -> None:
        self._definitions = definitions
        self._timers = timers
        self._claimable = claimable
        self._max_child_depth = max_child_depth

    def take(self, taken: TurnTaken) -> None:
        """Take the turns of what has arrived at a run, as far as one commit holds it."""
        run = taken.run
        arrivals = run.arrivals
        machine = run.machine if run.problem is None else None
        if machine is not None and len(arrivals) == 1 and type(arrivals[0].event) is e.ActivityCompleted:
            self._take_result(run, machine, taken)
            return
        taken.fault = run.problem
        consumed: list[int] = []
        try:
            if run.machine is None and taken.fault is None:
                self._begin(run, taken)
            if arrivals and taken.fault is None:
                self._take_arrivals(run, taken, consumed)
        except DecodeError as error:  # a row that no release has written
            taken.fault = Failure("Undecodable", str(error))
        taken.commit = self._commit(run, taken, tuple(consumed))
        _let_go_with_its_end(taken)

    def _take_result(self, run: Resident, machine: Machine, taken: TurnTaken) -> None:
        """Take the turn of an activity's result that is all that has arrived: nearly every turn is one.

        And nearly every one asks for the next activity and for nothing else: then there is one entry to write.
        """
        arrival = run.arrivals[0]
        event: Any = arrival.event
        turn = machine.apply(event)
        mail = arrival.mail
        if turn.fault is not None:
            taken.fault = failure_of(turn.fault)
        else:
            run.arrivals.popleft()
            commands = turn.commands
            if mail is None and len(commands) == 1 and type(commands[0]) is c.RunActivity:
                taken.requests.append(commands[0])
                claimed = run.claimed
                taken.commit = Commit(
                    claimed.run_id, claimed.token, claimed.generation, run.seq, (entry_of_event(event),)
                )
                return
            self._note(run, taken, event, turn)
        taken.commit = self._commit(run, taken, () if mail is None or taken.fault is not None else (mail,))
        _let_go_with_its_end(taken)

    def _begin(self, run: Resident, taken: TurnTaken) -> None:
        """Make the machine and bring it to where the journal left the run."""
        claimed, entries = run.claimed, run.entries
        run.entries = ()
        flow = self._definitions.workflows[claimed.workflow, claimed.version]
        context = RunContext(
            claimed.run_id,
            claimed.generation,
            claimed.depth,
            self._max_child_depth,
            claimed.namespace,
            claimed.attributes,
            claimed.trace,
            None if claimed.retry is None else decode_retry(claimed.retry),
        )
        machine = run.machine = Machine(flow, context)
        if claimed.generation == 1:
            started: e.Event = e.RunStarted(claimed.started_us, claimed.input)
        else:
            started, entries = event_of_entry(entries[0]), entries[1:]
        assert isinstance(started, e.RunStarted)
        turn = machine.replay(started, entries)
        if turn.closing is not None and turn.closing not in turn.commands:  # it ends where it used to wait
            turn = Turn((*turn.commands, turn.closing), None, turn.closing)
        self._note(run, taken, started, turn)
        if len(entries) > started.carried and not machine.children.knows_all:
            # A child that this machine does not know may bear the id; whoever was told so may have died since.
            taken.unsure = machine.children.unanswered()
            run.comparing = {start.key: [] for start in taken.unsure}
            run.withhold()  # no turn goes with what it takes: that is for parents that have a machine

    def _take_arrivals(self, run: Resident, taken: TurnTaken, consumed: list[int]) -> None:
        machine, arrivals = run.machine, run.arrivals
        assert machine is not None
        rows = 0
        while arrivals and rows < MOST_ROWS and taken.fault is None and machine.closing is None:
            if not taken.started and type(arrivals[0].event) is e.ChildCompleted:
                rows = self._take_ends(run, machine, taken, consumed, rows)
                if rows >= MOST_ROWS or not arrivals:
                    return
            arrival = arrivals[0]
            event = arrival.event
            if taken.started and isinstance(event, e.ChildOutcome) and event.key in taken.started:
                return  # it was there before this commit starts the child, so it is an earlier one's
            rows += 1
            for ended in arrival.ended:
                rows += ended.rows
            void = event is None or (type(event) in _MAY_BE_VOID and _is_void(run, machine, event))
            if event is not None and not void:
                turn = machine.apply(event)
                if turn.fault is not None:
                    taken.fault = failure_of(turn.fault)
                    return
                self._note(run, taken, event, turn)
                rows += len(turn.commands)
            if type(event) in _MAY_BE_VOID:
                _hear(taken, machine, arrival, void=void)
            arrivals.popleft()  # only now: until here an error leaves it, and what ended with it, where it was
            taken.ended += arrival.ended
            if arrival.mail is not None:
                consumed.append(arrival.mail)

    def _take_ends(self, run: Resident, machine: Machine, taken: TurnTaken, consumed: list[int], rows: int) -> int:
        """Take in the ends of children that have arrived, up to one that wakes somebody; return the count of rows.

        Nearly every child of many ends like that, and then there is an entry to write and nothing else.
        """
        arrivals, entries = run.arrivals, list[Entry]()
        while arrivals and rows < MOST_ROWS:
            event, mail, turns = arrivals[0]
            if type(event) is not e.ChildCompleted or not is_only_noted(machine, event):
                break
            entries.append(entry_of_child(event))
            arrivals.popleft()  # only now, see above
            rows += 1
            for ended in turns:
                rows += ended.rows
                taken.ended.append(ended)
            if mail is not None:
                consumed.append(mail)
            if turns or mail is not None:
                taken.heard.append((e.ChildCompleted, event.key))
        if entries:
            taken.turns.append(Effects(tuple(entries)))
        return rows

    def _note(self, run: Resident, taken: TurnTaken, event: e.Event, turn: Turn) -> None:
        if turn.fault is not None:
            taken.fault = failure_of(turn.fault)
            return
        assert run.machine is not None
        found = effects(run.machine.context, event, turn)
        taken.turns.append(found)
        if found.children and not run.machine.children.knows_all:
            taken.started |= {child.key for child in found.children}
        for request in found.requests:
            # Timers are this process's own business, and a later event of this very commit may be one of them.
            if type(request) is c.StartTimer:
                self._timers.arm(run, request.key, request.due_us)
            elif type(request) is c.CancelTimer:
                run.timers.pop(request.key, None)
            else:
                taken.requests.append(request)

    def _commit(self, run: Resident, taken: TurnTaken, consumed: tuple[int, ...]) -> Commit | None:
        """Return the turns as one commit, or None if there is nothing to write."""
        turns, claimed = taken.turns, run.claimed
        if len(turns) == 1:
            found = turns[0]
        else:
            found = _together(turns)
        status: Status = KEEP
        if taken.fault is not None:
            status = Park(encode_failure(taken.fault))
        elif found.closing is not None:
            closing = found.closing
            status = Complete(closing.result) if type(closing) is c.CompleteRun else self._status(run, found)
            if claimed.depth and isinstance(closing, _CLOSINGS):
                taken.outcome = closing
        messages = found.messages
        said = found.published is not None
        if status is KEEP and not (found.entries or consumed or taken.ended or found.cancels or messages or said):
            return None
        children, mine = found.children, 0
        if children and taken.fault is None:
            children, mine = self._mine_first(children, found)
        return Commit(
            claimed.run_id,
            claimed.token,
            claimed.generation,
            run.seq,
            found.entries,
            consumed,
            children,
            mine,
            messages,
            found.cancels,
            status=status,
            published=found.published,
            answers=found.answers,
            descendants="leave" if taken.fault is not None else found.descendants,
            deadlines=() if taken.fault is not None else found.deadlines,
        )

    def _status(self, run: Resident, found: Effects) -> Status:
        match found.closing:
            case c.CompleteRun(result):
                return Complete(result)
            case c.FailRun(failure):
                return Fail(encode_failure(failure))
            case c.CancelRun(reason):
                return Cancel(encode_failure(Failure("cancelled", reason)))
            case c.ContinueRun():
                return Continue(self._version(run), found.next_entries)
            case c.RetryRun() as again:
                due_us = again.due_us if again.delay_us else None
                return Continue(self._version(run), found.next_entries, due_us, _waiting_for(run, again))
            case None:
                return KEEP

    def _version(self, run: Resident) -> int:
        """Return the version that the next generation is of: this worker's."""
        return self._definitions.workflow(run.claimed.workflow).version

    def _mine_first(self, children: tuple[NewRun, ...], found: Effects) -> tuple[tuple[NewRun, ...], int]:
        """Return the children with those first that this worker can run, and how many it takes."""
        known = self._definitions.workflows
        mine = [child for child in children if (child.workflow, child.version) in known]
        if found.cancels or found.descendants != "leave":
            mine = _not_stillborn(mine, found)
        if len(mine) == len(children):
            return children, self._claimable(len(children))
        taken = {child.run_id for child in mine}
        others = [child for child in children if child.run_id not in taken]
        return (*mine, *others), self._claimable(len(mine))


def failure_of(fault: Fault) -> Failure:
    """Return what is recorded of a run that cannot go on."""
    if isinstance(fault, Divergence):
        return Failure("NonDeterminismError", str(fault))
    if isinstance(fault, Forbidden):
        return Failure("NotDeterministic", str(fault))
    return Failure(type(fault).__name__, str(fault))


def _let_go_with_its_end(taken: TurnTaken) -> None:
    """Let the machine of a run that ends go before its commit, which may wait for its parent's with thousands.

    One that has heard of children, or starts some, stays: listeners are told what those are called.
    """
    commit = taken.commit
    if commit is not None and commit.status.__class__ in _ENDS and not (taken.heard or commit.children):
        taken.run.let_go()


def _is_void(run: Resident, machine: Machine, event: e.Event) -> bool:
    """Say whether an event leaves no entry: a timer cancelled meanwhile, a child's end that is known already."""
    if type(event) is e.TimerFired:
        return run.timers.pop(event.key, None) is None
    assert isinstance(event, (e.ChildCompleted, e.ChildFailed, e.ChildCancelled))
    return machine.children.has_ended(event.key)


def _not_stillborn(children: list[NewRun], found: Effects) -> list[NewRun]:
    """Return the children that are not cancelled by the very commit that inserts them: those would still act."""
    if found.descendants == "cancel":
        return []
    cancelled = {cancel.run_id for cancel in found.cancels}
    closing = found.descendants == "close"
    return [
        child
        for child in children
        if child.run_id not in cancelled and not (closing and child.options.on_parent_close == "cancel")
    ]


def _hear(taken: TurnTaken, machine: Machine, arrival: Arrival, *, void: bool) -> None:
    """Note the end of a child that listeners are to be told of, in the turn that hears of it first.

    That is its timeout's, and then that it was cancelled is no news, or the message that it has ended. The answer
    to a question may repeat what an earlier generation heard; if it does not, the message comes after it.
    """
    event = arrival.event
    if isinstance(event, e.TimerFired):
        if not void and event.key.endswith(TIMEOUT):
            taken.heard.append((e.ChildFailed, event.key.removesuffix(TIMEOUT)))
    elif isinstance(event, e.ChildOutcome) and (arrival.mail is not None or arrival.ended):
        known: object = machine.children.outcome_of(event.key) if void else event
        if known is not None and not (isinstance(known, e.ChildFailed) and known.failure.timed_out):
            taken.heard.append((type(event), event.key))


def _waiting_for(run: Resident, again: c.RetryRun) -> str:
    """Say in words what a run waits for that has failed and begins again later."""
    retry = run.machine.context.retry if run.machine is not None else None
    of = "" if retry is None else f" of {retry.max_attempts}"
    words = str(again.failure).partition("\n")[0]
    return f"attempt {again.attempt}{of} after {words if len(words) <= MOST_WORDS else words[:MOST_WORDS] + '…'}"


_ENDS = (Complete, Fail, Cancel)
_CLOSINGS = (c.CompleteRun, c.FailRun, c.CancelRun)
_MAY_BE_VOID = {e.TimerFired, e.ChildCompleted, e.ChildFailed, e.ChildCancelled}


def next_generation(run: Resident, status: Continue) -> None:
    """Turn a resident run into its next generation, whose entries are durable. Not from inside its own turn."""
    if run.machine is not None:
        run.machine.discard()  # left to the garbage collector, its clean-up would act in another run's turn
    run.claim(run.claimed._replace(generation=run.claimed.generation + 1, version=status.version))
    run.entries, run.machine, run.seq = status.entries, None, len(status.entries)
    run.timers, run.attempts = {}, {}
    run.arrivals.extend(chain.from_iterable(run.comparing.values()))
    run.comparing = {}
    kept = [
        arrival._replace(event=None) if isinstance(arrival.event, _OWN_EVENTS) else arrival
        for arrival in run.arrivals
        if arrival.mail is not None or not isinstance(arrival.event, _OWN_EVENTS)
    ]
    run.arrivals.clear()
    run.arrivals.extend(kept)


# What a generation has asked for itself; the next one knows nothing of it.
_OWN_EVENTS = (e.ActivityStarted, e.ActivityCompleted, e.ActivityFailed, e.TimerFired, e.ChildStartFailed)


def _together(turns: list[Effects]) -> Effects:
    last = turns[-1] if turns else None
    return Effects(
        _all(found.entries for found in turns),
        _all(found.children for found in turns),
        _all(found.messages for found in turns),
        _all(found.cancels for found in turns),
        (),
        last.closing if last is not None else None,
        last.next_entries if last is not None else (),
        _all(found.answers for found in turns),
        next((found.published for found in reversed(turns) if found.published is not None), None),
        last.descendants if last is not None else "leave",
        last.deadlines if last is not None else (),
    )


def _all(parts: Iterable[tuple[_T, ...]]) -> tuple[_T, ...]:
    return tuple(chain.from_iterable(parts))
