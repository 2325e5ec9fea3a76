"""What an environment raises when a test cannot go on: failed assertions, since it is the test that fails."""

from __future__ import annotations

from continuum.errors import ContinuumError

__all__ = ["RunParked", "RunStuck"]


class RunStuck(ContinuumError, AssertionError):
    """A run waits for what can never come: no timer, no activity and nothing that the test has planned.

    ``waiting_for`` says in words what it waits for.
    """

    def __init__(self, run_id: str, waiting_for: str, hints: str = "") -> None:
        super().__init__(f"run {run_id!r} waits for what can never come: {waiting_for}{hints}")
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
