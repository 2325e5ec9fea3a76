"""What an environment raises when a test cannot go on: failed assertions, since it is the test that fails."""

from __future__ import annotations

from continuum.errors import ContinuumError

__all__ = ["CrashDiverged", "RunParked", "RunStuck"]


class RunStuck(ContinuumError, AssertionError):
    """A run waits for what can never come: no timer, no activity and nothing that the test has planned.

    Or for what does not come within the bounds ``stuck_after`` and ``max_jumps`` of its environment.
    ``waiting_for`` says in words what it waits for. ``run_id`` is ``""`` if the test waits for no run.
    """

    def __init__(
        self, run_id: str, waiting_for: str, hints: str = "", *, why: str = "waits for what can never come"
    ) -> None:
        who = f"run {run_id!r}" if run_id else "the test"
        super().__init__(f"{who} {why}: {waiting_for}{hints}")
        self.run_id = run_id
        self.waiting_for = waiting_for


class RunParked(ContinuumError, AssertionError):
    """A run cannot go on: its code does not decide what is recorded, or cannot read it.

    ``problem`` is the diff.
    """

    def __init__(self, run_id: str, problem: str) -> None:
        super().__init__(f"run {run_id!r} is parked and cannot go on:\n{problem}")
        self.run_id = run_id
        self.problem = problem


class CrashDiverged(ContinuumError, AssertionError):
    """A workflow did not come to the same after its worker was killed.

    ``boundary`` says where that was, ``problem`` shows both sides: - without a crash, + with it.
    """

    def __init__(self, workflow: str, boundary: str, problem: str) -> None:
        super().__init__(f"workflow {workflow!r} comes to something else after a crash: {boundary}\n{problem}")
        self.workflow = workflow
        self.boundary = boundary
        self.problem = problem
