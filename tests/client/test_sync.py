"""The client for sync code: the same verbs, from any thread, without an event loop of the caller's."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from continuum import (
    Client,
    DatabaseUnreachable,
    EncodeError,
    RunCancelled,
    RunFailed,
    RunNotFound,
    SyncClient,
    SyncRunHandle,
    WorkflowMisuse,
    connect_sync,
    workflow,
)
from continuum._journal.journal import PostgresJournal
from tests.client.flows import Approval, Order, Receipt, audit_flow, complete, fail, order_flow, take
from tests.core.harness import Run
from tests.interrupts import interruptible
from tests.journal.harness import child, entry, soon, turn, write

# A program that waits for a run nobody works on, and says so when its main thread is in the wait.
WAITS = """
import sys, threading, time, continuum

def tell():
    names = ()
    while "_wait" not in names:
        time.sleep(0.01)
        frame, names = sys._current_frames()[threading.main_thread().ident], []
        while frame:
            names.append(frame.f_code.co_name)
            frame = frame.f_back
    print("waiting", flush=True)

with continuum.connect_sync(sys.argv[1], migrate=False) as client:
    run = client.get_run("r")
    threading.Thread(target=tell, daemon=True).start()
    try:
        run.result()
    except KeyboardInterrupt:
        print(run.describe().state, flush=True)
        raise
"""
LEAVES_OPEN = """
import sys, continuum
client = continuum.connect_sync(sys.argv[1], migrate=False)
print(client.get_run("r").describe().state)
"""


async def test_each_verb_does_what_it_does_in_the_async_client(sync: SyncClient, engine: PostgresJournal) -> None:
    """From inside an event loop it works too; that loop stands still meanwhile."""
    run = sync.start(order_flow, Order("o1"), id="r", namespace="shop")
    assert run.id == "r"
    assert repr(run) == "<run r (order_flow)>"
    run.signal("approve", Approval("ann"))
    sync.signal("r", "note", 1)
    claimed = await take(engine, "r")
    await write(engine, turn(claimed, entries=(entry(),), children=(child("r", "a"),)))
    assert [event.key for event in run.history()] == ["a"]
    assert [found.id for found in sync.list_children("r")] == ["r/a"]
    assert [found.id for found in sync.tree("r", levels=1, limit=5)] == ["r", "r/a"]
    assert [found.id for found in sync.list_runs(namespace="shop")] == ["r"]
    assert sync.definitions() == []
    with pytest.raises(TimeoutError, match="it is running by worker 'w'"):
        run.result(timeout=0)
    run.resume()
    run.cancel("sold out")
    sync.cancel("r")
    run.cancel("again", grace=5)
    with pytest.raises(RunCancelled, match="sold out"):
        run.result()
    sync.start(order_flow, Order("o3"), id="r3").cancel("later", grace=3600)
    sync.cancel("r3", "sooner", grace=1800)
    assert sync.get_run("r3").describe().state == "pending"
    sync.start(order_flow, Order("o2"), id="r2")
    await complete(engine, "r2")
    assert sync.get_run("r2", order_flow).result(timeout=10) == Receipt("o1")
    assert sync.get_run("r2").describe().result == {"order_id": "o1"}


async def test_errors_are_those_of_the_async_client(sync: SyncClient, engine: PostgresJournal) -> None:
    start: Any = sync.start
    with pytest.raises(EncodeError):
        start(order_flow, 3)
    with pytest.raises(TypeError, match="did you mean 'priority'"):
        start(audit_flow, priorty=3)
    with pytest.raises(RunNotFound):
        sync.get_run("missing").describe()
    run = sync.start(audit_flow, id="f")
    await fail(engine, "f")
    with pytest.raises(RunFailed, match="no such order"):
        run.result()
    wrong: Any = {"shcema": "x"}
    with pytest.raises(TypeError, match=r"connect_sync\(\) has no option 'shcema'; did you mean 'schema'"):
        connect_sync("", **wrong)


def test_threads_share_a_client(sync: SyncClient) -> None:
    def use(number: int) -> str:
        run = sync.start(order_flow, Order(str(number)), id=f"r{number}")
        run.signal("note", number)
        run.cancel()
        return run.describe().state

    with ThreadPoolExecutor(16) as pool:
        assert list(pool.map(use, range(64))) == ["cancelled"] * 64


async def test_a_wait_in_a_thread_lets_others_go_on(sync: SyncClient, engine: PostgresJournal) -> None:
    run = sync.start(order_flow, Order("o1"), id="r")
    waiting = [asyncio.ensure_future(asyncio.to_thread(run.result)) for _ in range(4)]
    assert (await asyncio.to_thread(run.describe)).state == "pending"
    await complete(engine, "r")
    assert await soon(asyncio.gather(*waiting)) == [Receipt("o1")] * 4


def test_a_workflow_that_uses_a_client_is_told_what_to_use_instead(sync: SyncClient) -> None:
    @workflow
    async def starts_runs(number: int) -> str:
        try:
            sync.start(audit_flow)
        except WorkflowMisuse as error:
            return str(error)
        return "not refused"

    assert "child()" in Run(starts_runs, 1).result


def test_a_client_that_is_closed_says_so(database: str) -> None:
    with connect_sync(database, migrate=False) as client:
        run = client.start(audit_flow)
    for use in (run.describe, client.list_runs, lambda: client.start(audit_flow)):
        with pytest.raises(RuntimeError, match="this client is closed"):
            use()
    client.close()
    assert [thread for thread in threading.enumerate() if thread.name == "continuum-client"] == []


def test_closing_ends_waits_in_other_threads(database: str) -> None:
    client = connect_sync(database, migrate=False)
    run: SyncRunHandle[int] = client.start(audit_flow)
    reached = threading.Event()

    def wait() -> int:
        reached.set()
        return run.result()

    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(wait)
        reached.wait()
        client.close()
        with pytest.raises(RuntimeError, match="closed"):
            waiting.result()


def test_a_database_that_is_not_there_is_an_error_at_the_call() -> None:
    before = set(threading.enumerate())
    with pytest.raises(DatabaseUnreachable):
        connect_sync("postgresql://nobody@127.0.0.1:1/none")
    assert set(threading.enumerate()) <= before


def test_ctrl_c_ends_a_wait_and_the_client_goes_on(sync: SyncClient, database: str) -> None:
    sync.start(audit_flow, id="r")
    with interruptible():
        process = subprocess.Popen(
            [sys.executable, "-W", "error", "-c", WAITS, database],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == "waiting\n"
        process.send_signal(signal.SIGINT)
        out, errors = process.communicate(timeout=30)
    assert out == "pending\n", errors
    assert errors.rstrip().endswith("KeyboardInterrupt")
    assert "never awaited" not in errors


def test_a_client_left_open_is_closed_at_the_interpreters_exit(sync: SyncClient, database: str) -> None:
    sync.start(audit_flow, id="r")
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", LEAVES_OPEN, database],
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "pending\n", "")


def test_a_process_forked_off_is_told_to_connect_itself(database: str) -> None:
    """In a process of its own: this one has threads, which must not be forked."""
    code = """
import os, sys, warnings, continuum
warnings.simplefilter("ignore")
client = continuum.connect_sync(sys.argv[1], migrate=False)
pid = os.fork()
if pid == 0:
    try:
        client.list_runs()
    except RuntimeError as error:
        print(error, flush=True)
    client.close()
    sys.exit(0)
assert os.waitpid(pid, 0)[1] == 0
print(len(client.list_runs()))
"""
    done = subprocess.run(
        [sys.executable, "-c", code, database], capture_output=True, text=True, check=True, timeout=30
    )
    assert done.stdout.splitlines() == [
        "this client was connected before the process forked: connect_sync() after the fork",
        "0",
    ]


def test_the_sync_client_has_every_verb_of_the_async_one() -> None:
    from continuum import RunHandle

    def verbs(of: type) -> set[str]:
        return {name for name in dir(of) if not name.startswith("_")}

    assert verbs(Client) - {"open_journal"} | {"close"} == verbs(SyncClient)
    assert verbs(RunHandle) == verbs(SyncRunHandle)
