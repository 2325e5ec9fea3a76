"""A workflow that takes its worker along in its own turn, as a fault in a C extension does."""

from __future__ import annotations

import faulthandler
import resource

from continuum import workflow
from tests.processes.flows import Job, step

resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def crash() -> None:
    """Touch memory that is not there. What could be called instead of it is refused in a workflow."""
    faulthandler._sigsegv()  # type: ignore[attr-defined] # not in the stubs


@workflow
async def deadly_workflow(job: Job) -> None:
    await step(f"{job.run}#0")
    crash()
