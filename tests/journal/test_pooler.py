"""Behind a real PgBouncer in transaction mode, where the machine has one."""

import asyncio
import logging
import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from continuum._core.entries import Entry
from continuum._journal.commit import Commit, Committed, Complete, NewRoot
from continuum._journal.journal import PostgresJournal
from continuum.embedded.account import server_account
from tests.length import at_length

SETTINGS = """
[databases]
pooled = host={host} user={user} dbname={dbname}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = any
pool_mode = transaction
default_pool_size = 3
"""


@pytest.fixture
def pooled(database: str) -> Iterator[str]:
    """The url of the test's database through a pooler."""
    program = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if program is None:
        pytest.skip("no pgbouncer on this machine")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    account = server_account()
    given = conninfo_to_dict(database)
    folder = Path(tempfile.mkdtemp(prefix="continuum-pooler-"))
    folder.chmod(0o755)
    settings = folder / "pgbouncer.ini"
    settings.write_text(SETTINGS.format(port=port, **{key: given[key] for key in ("host", "user", "dbname")}))
    identity = {} if account is None else {"user": account.uid, "group": account.gid, "extra_groups": []}
    process = subprocess.Popen(
        [program, "-q", settings], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd="/", **identity
    )
    url = f"postgresql://postgres@127.0.0.1:{port}/pooled"
    try:
        for _ in range(500):
            assert process.poll() is None
            try:
                psycopg.connect(url, prepare_threshold=None, connect_timeout=2).close()
                break
            except psycopg.OperationalError:
                continue
        yield url
    finally:
        process.terminate()
        process.wait(10)
        shutil.rmtree(folder)


@at_length
async def test_a_pooler_is_found_out_and_worked_with(pooled: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "continuum.journal"):
        async with PostgresJournal(pooled).open(migrating=False) as journal:
            await journal.register("w", 10, {})
            ids = [f"run-{number}" for number in range(50)]
            await journal.start([NewRoot(run_id, "flow", 1, b"null") for run_id in ids])
            claimed = await journal.claim([("flow", 1)], 50)
            assert {run.run_id for run in claimed} == set(ids)
            for seq in (1, 2):
                entry = Entry("timer_fired", f"t-{seq}", seq, b"{}")
                outcomes = await asyncio.gather(
                    *(journal.commit(Commit(run.run_id, run.token, 1, seq, entries=(entry,))) for run in claimed)
                )
                assert all(isinstance(outcome, Committed) for (outcome,) in outcomes)
            run = claimed[0]
            await journal.commit(Commit(run.run_id, run.token, 1, 3, status=Complete(b"7")))
            assert (await journal.wait(run.run_id)).result == b"7"
            while not caplog.records:
                await asyncio.sleep(0.01)
            assert not journal.hears
    assert [record.getMessage().partition(",")[0] for record in caplog.records] == [
        "notifications do not come through"
    ]
