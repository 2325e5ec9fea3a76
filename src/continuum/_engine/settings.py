"""What can be set for a worker: by keyword, or by an environment variable ``CONTINUUM_<NAME>``.

The rule: a keyword wins over the environment, the environment over the default; what cannot be used is one
``InvalidSetting`` that names it.
"""

from __future__ import annotations

import difflib
import logging
from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import timedelta
from typing import Any

from continuum.errors import InvalidSetting
from continuum.policies import Duration, Retry, duration, expect, refuse_unknown

_WHOLE = ("claim_batch", "cache", "max_activities", "threads", "max_child_depth")
_DURATIONS = ("lease", "heartbeat", "poll", "passivate_after", "drain", "blocked_after")
_ELSEWHERE = {
    f"CONTINUUM_{name}" for name in ("DATABASE_URL", "HOME", "LISTEN_URL", "MIGRATE", "SCHEMA", "PG_BIN")
}
logger = logging.getLogger("continuum.engine")
_OBJECTS = ("retry", "start_to_close")  # not to be said in an environment variable


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerSettings:
    """A worker's settings. Durations are a ``timedelta`` or seconds, and are held as ``timedelta``.

    ``lease``: after so long without a heartbeat others take its runs over. ``heartbeat``: how often it gives a
    sign of life. ``poll``: how often it asks for due runs and mail that nobody told it of. ``claim_batch``: runs
    claimed at once. ``cache``: runs held in memory. ``passivate_after``: a run that has waited so long leaves
    memory. ``max_activities`` async ones and ``threads`` sync ones run at a time. ``drain``: how long running
    activities get when the worker stops. ``blocked_after``: how long a workflow may keep the loop busy before it
    is reported. ``retry`` and ``start_to_close`` are for activities that do not say.
    """

    lease: Duration = timedelta(seconds=10)
    heartbeat: Duration = timedelta(seconds=2)
    poll: Duration = timedelta(seconds=1)
    claim_batch: int = 100
    cache: int = 10_000
    passivate_after: Duration = timedelta(seconds=5)
    max_activities: int = 1000
    threads: int = 32
    max_child_depth: int = 10
    drain: Duration = timedelta(seconds=10)
    blocked_after: Duration = timedelta(seconds=1)
    retry: Retry | None = None
    start_to_close: Duration | None = None

    def __post_init__(self) -> None:
        try:
            for name in _WHOLE:
                expect(name, getattr(self, name), int, "a whole number")
            for name in _DURATIONS:
                object.__setattr__(self, name, duration(name, getattr(self, name)))
            if self.start_to_close is not None:
                object.__setattr__(self, "start_to_close", duration("start_to_close", self.start_to_close))
        except (TypeError, ValueError) as error:
            raise InvalidSetting(str(error)) from None
        for name in _WHOLE:
            if getattr(self, name) < (least := 0 if name == "max_child_depth" else 1):
                raise InvalidSetting(f"{name} is a whole number from {least}: got {getattr(self, name)}")
        for name in ("lease", "heartbeat", "poll"):
            if self.seconds(name) <= 0:
                raise InvalidSetting(f"{name} must be longer than 0")
        if self.seconds("lease") < 2 * self.seconds("heartbeat"):
            raise InvalidSetting(
                f"lease ({self.seconds('lease')} s) must be at least twice heartbeat "
                f"({self.seconds('heartbeat')} s): else one late heartbeat loses every run"
            )

    def seconds(self, name: str) -> float:
        """Return a duration by name, in seconds."""
        value: timedelta = getattr(self, name)
        return value.total_seconds()

    @classmethod
    def resolve(cls, given: Mapping[str, Any], environ: Mapping[str, str]) -> WorkerSettings:
        """Return the settings ``given`` by keyword, completed from the environment.

        Raises ``TypeError`` for an unknown keyword, with the nearest name, and ``InvalidSetting``.
        """
        known = [field.name for field in fields(cls)]
        refuse_unknown("Worker", (name for name in given if name not in known), known)
        _warn_of_misspelt(environ, {f"CONTINUUM_{name.upper()}" for name in known})
        values: dict[str, Any] = {}
        for name in known:
            variable = f"CONTINUUM_{name.upper()}"
            if name in given:
                values[name] = given[name]
            elif name not in _OBJECTS and environ.get(variable, "").strip():
                values[name] = _number(variable, environ[variable], int if name in _WHOLE else float)
        return cls(**values)


def _warn_of_misspelt(environ: Mapping[str, str], known: set[str]) -> None:
    for name in sorted(environ):
        if not name.startswith("CONTINUUM_") or name in known or name in _ELSEWHERE:
            continue
        if near := difflib.get_close_matches(name, known, n=1, cutoff=0.85):
            logger.warning("%s is no setting; did you mean %s?", name, near[0])


def _number(variable: str, text: str, kind: type[int] | type[float]) -> float:
    try:
        return kind(text)
    except ValueError:
        what = "a whole number" if kind is int else "a number of seconds"
        raise InvalidSetting(f"{variable} is {what}: got {text!r}") from None
