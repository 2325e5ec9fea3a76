"""What a service does while there is no database: it tries again, a little later each time.

The rule: trouble with the database ends no service and is logged once until it is over. It is caught here, at a
service's edge, and nowhere else in the engine.
"""

from __future__ import annotations

import logging
from types import TracebackType

from continuum._journal.backoff import LONGEST_PAUSE_S, Backoff
from continuum.errors import DatabaseBusy, DatabaseRefused, DatabaseUnreachable

logger = logging.getLogger("continuum.engine")


class Retrying:
    """A block that may fail for want of a database: ``async with`` it in a loop. A failure is a pause."""

    def __init__(self, what: str, longest_s: float = LONGEST_PAUSE_S) -> None:
        self._what = what
        self._backoff = Backoff(longest_s)
        self._told = False
        self.failed = False

    async def __aenter__(self) -> None:
        self.failed = False

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        if error is None:
            if self._told:
                logger.info("%s: it goes on", self._what)
            self._backoff.reset()
            self._told = False
            return False
        if not isinstance(error, (DatabaseUnreachable, DatabaseBusy, DatabaseRefused)):
            return False
        self.failed = True
        if not self._told:
            level = logging.INFO if isinstance(error, DatabaseBusy) else logging.WARNING
            logger.log(level, "%s: %s; trying again", self._what, error)
        self._told = True
        await self._backoff.pause()
        return True
