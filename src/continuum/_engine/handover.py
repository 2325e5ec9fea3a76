"""How a worker stops: what waits leaves at once, what runs gets a while, the rest is given back.

The rule: bounded in time whatever happens. What cannot be given back is taken over when the lease has passed.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from continuum._journal.commit import Lease
from continuum.errors import ContinuumError

if TYPE_CHECKING:
    from continuum._engine.engine import Engine
    from continuum._engine.resident import Resident
    from continuum._journal.protocol import Journal

logger = logging.getLogger("continuum.engine")
LOOK_S = 0.02
COMMITS_S = 5.0  # for commits that are under way, and for giving back leases


async def hand_over(engine: Engine, patience_s: float) -> None:
    """Let every run leave; those whose activities run get ``patience_s`` seconds."""
    time = asyncio.get_running_loop().time
    until = time() + patience_s
    while engine.residents.by_id and time() < until:
        await _let_leave(engine)
        if engine.residents.by_id:
            await asyncio.sleep(LOOK_S)
    left = list(engine.residents.by_id.values())
    if left:
        logger.warning("%d runs still busy after %.1f s are given back as they are", len(left), patience_s)
    try:
        async with asyncio.timeout(COMMITS_S):
            await engine.turns.idle()
            engine.residents.drop_all()
            await _give_back(engine.journal)
            await engine.journal.deregister()
    except (TimeoutError, ContinuumError) as error:
        engine.residents.drop_all()
        logger.warning("leases not given back (%s); they end by themselves", str(error) or "no time")


async def _let_leave(engine: Engine) -> None:
    runs = list(engine.residents.by_id.values())
    engine.cache.passivate(runs, -1, len(runs))
    owed = [run for run in runs if _is_owed(engine, run)]
    if owed:
        leases = [run.lease for run in owed]
        for run in owed:
            engine.residents.drop(run)
        try:
            await engine.journal.release(leases)
        except ContinuumError as error:
            logger.info("not released: %s", error)


def _is_owed(engine: Engine, run: Resident) -> bool:
    """Say whether a run waits for activities that this worker will not begin any more."""
    return run.owed and run.at_rest and not run.gone and not engine.activities.busy(run)


async def _give_back(journal: Journal) -> None:
    """Release every lease of this worker; rows that somebody holds are asked for again."""
    while leases := await journal.leases():
        await journal.release([Lease(lease.run_id, lease.token) for lease in leases])
        await asyncio.sleep(LOOK_S)
