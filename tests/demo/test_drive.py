"""What the demo does about runs that cannot go on."""

from pathlib import Path

import pytest

from continuum import connect
from continuum.demo import drive
from continuum.demo.flows import Audit, audit
from tests.databases import run as execute


async def test_a_parked_run_is_told_and_not_waited_for(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drive, "PARKED_S", 0.0)
    async with connect(database) as client:
        await client.start(audit, Audit("/ledger"), id="audit-1")
        execute(database, "update continuum.runs set state = 'parked', next_wakeup_at = null")
        with pytest.raises(drive.RunParked, match=r"run 'audit-1' is parked.*continuum runs show audit-1"):
            await drive._refuse_parked(client, "audit-1")


def test_a_home_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "home").touch()
    with pytest.raises(drive.ContinuumError, match="no place for the ledger"), drive._folder(tmp_path / "home"):
        pass
