"""The runs in this worker's memory.

The rule: a run that leaves takes nothing with it: its activities stop, its machine is let go, and children that
had ended beside it tell its inbox instead.
"""

from __future__ import annotations

from collections.abc import Callable

from continuum._engine.resident import Resident, TurnTaken


class Residents:
    """All residents by run id. ``left`` is called with each that leaves, ``orphaned`` with turns it held back."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.promised = 0  # births whose commit is under way
        self.by_id: dict[str, Resident] = {}
        self.left: Callable[[Resident], None] = _nobody
        self.orphaned: Callable[[TurnTaken], None] = _nobody

    def __len__(self) -> int:
        return len(self.by_id)

    @property
    def room(self) -> int:
        """How many more runs may come."""
        return max(0, self.most - len(self.by_id) - self.promised)

    def add(self, run: Resident) -> None:
        """Take a run in; an older copy of it leaves."""
        run_id = run.claimed.run_id
        older = self.by_id.get(run_id)
        if older is not None:
            self.drop(older)
        self.by_id[run_id] = run

    def drop(self, run: Resident) -> None:
        """Let a run go. Not from inside its own turn."""
        if run.gone:
            return
        run.gone = True
        run_id = run.claimed.run_id
        if self.by_id.get(run_id) is run:
            del self.by_id[run_id]
        self.left(run)
        if run.machine is not None:
            run.let_go()
        run.entries = ()  # timers and commits under way may hold on to the run for a while
        run.timers = {}
        if run.arrivals:
            arrivals = list(run.arrivals)
            run.arrivals.clear()
            for arrival in arrivals:
                for ended in arrival.ended:
                    self.orphaned(ended)
        if run.resting:
            run.rested()

    def drop_all(self) -> None:
        """Let every run go, with all that was held back for it: the leases are lost."""
        runs = list(self.by_id.values())
        for run in runs:
            run.arrivals.clear()
        for run in runs:
            self.drop(run)


def _nobody(_: object) -> None:
    """Serve as a callback that nobody has set."""
