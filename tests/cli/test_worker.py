"""``continuum worker`` as a process of its own: ready, healthy, drained, and refused in one line."""

import dataclasses
import json
import os
import signal
import socket
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from continuum._engine.settings import WorkerSettings
from continuum._journal.commit import NewRoot
from continuum.cli import supervisor, worker
from tests.cli.conftest import Run
from tests.cli.harness import FLOWS, Program, free_ports, made, until
from tests.length import at_length

Start = Callable[..., Program]
SLOW = """
import asyncio, time
from pathlib import Path
from continuum import activity, side_effect, workflow

@activity
async def until_file() -> str:
    Path("begun").touch()
    while not Path("go").exists():
        await asyncio.sleep(0.01)
    return "went"

@activity
async def hang() -> None:
    Path("begun").touch()
    while True:
        pass

@workflow
async def slow() -> str:
    return await until_file()

@workflow
async def endless() -> None:
    side_effect(Path("begun").touch)
    n = 0
    while True:
        n = step(n)

def step(n: int) -> int:
    return n + 1

@workflow
async def hanging() -> None:
    await hang()
"""


@pytest.fixture
def flows(folder: Path) -> Path:
    (folder / "flows.py").write_text(FLOWS)
    (folder / "slow_flows.py").write_text(SLOW)
    return folder


def got(port: int, path: str) -> tuple[int, dict[str, object]]:
    """Ask a worker for its health."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_worker_says_that_it_is_ready_runs_workflows_and_drains(
    flows: Path, program: Start, run: Run, number: signal.Signals
) -> None:
    one = program("worker", "flows", "slow_flows.py")
    [line] = one.says("is ready")
    assert ": 6 workflows and 3 activities of flows, slow_flows; user=postgres dbname=" in line
    assert line.endswith(" schema continuum\n")
    assert run("start", "batch_flow", "3", "--wait=30", "--id", "b") == (0, "6\n", "")
    assert run("runs", "tree", "b")[1].count("completed") == 4
    one.signal(number)
    assert one.ends() == 0
    assert "Traceback" not in one.said
    assert one.lines[-1].endswith("continuum.worker: stopped\n")


def test_a_running_activity_may_end_while_the_worker_drains(flows: Path, program: Start, run: Run) -> None:
    one = program("worker", "slow_flows", "--drain", "60")
    one.says("is ready")
    assert run("start", "slow", "--id", "s")[0] == 0
    until((flows / "begun").exists)
    one.signal(signal.SIGTERM)
    one.says("asked to stop")
    (flows / "go").touch()
    assert one.ends() == 0
    program("worker", "slow_flows").says("is ready")
    assert run("start", "slow", "--id", "s", "--wait=30") == (0, '"went"\n', "")


@pytest.mark.parametrize(
    ("flow", "number", "code"),
    [
        ("slow", signal.SIGTERM, 143),
        ("slow", signal.SIGINT, 130),
        ("hanging", signal.SIGINT, 130),
        ("endless", signal.SIGTERM, 143),
    ],
)
def test_a_second_signal_ends_it_at_once_even_if_its_loop_is_blocked(
    flows: Path, program: Start, run: Run, flow: str, number: signal.Signals, code: int
) -> None:
    one = program("worker", "slow_flows", "--drain", "600")
    one.says("is ready")
    assert run("start", flow)[0] == 0
    until((flows / "begun").exists)
    one.signal(signal.SIGTERM)
    if flow == "slow":
        one.says("asked to stop")
    else:  # it cannot say anything; two signals that come together would be one
        until(lambda: not _pending(one.process.pid))
    one.signal(number)
    assert one.ends() == code


def _pending(pid: int) -> bool:
    """Tell whether a signal was sent to a process and has not arrived there yet."""
    rows = dict(line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return int(rows["ShdPnd"], 16) != 0


def test_a_worker_that_still_waits_for_its_database_stops_at_once(flows: Path, program: Start) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        silent.settimeout(30)
        one = program("worker", "flows", "--url", f"postgresql://127.0.0.1:{silent.getsockname()[1]}/x")
        connection, _ = silent.accept()
        with connection:
            one.signal(signal.SIGTERM)
            assert one.ends() == 0


def test_a_worker_answers_for_its_health(flows: Path, program: Start) -> None:
    port = free_ports(1)
    one = program("worker", "slow_flows", "--port", str(port), "--drain", "60")
    one.says("is ready")
    status, body = got(port, "/readyz")
    assert (status, body["ok"]) == (200, True)
    assert str(body["worker"]) in one.said
    assert got(port, "/healthz")[0] == 200
    assert got(port, "/")[0] == 404


def test_a_draining_worker_is_healthy_and_not_ready(flows: Path, program: Start, run: Run) -> None:
    port = free_ports(1)
    one = program("worker", "slow_flows", "--port", str(port), "--drain", "60")
    one.says("is ready")
    assert run("start", "slow")[0] == 0
    until((flows / "begun").exists)
    one.signal(signal.SIGTERM)
    until(lambda: got(port, "/readyz")[0] == 503)
    assert got(port, "/healthz")[0] == 200
    (flows / "go").touch()
    assert one.ends() == 0


def test_a_port_that_is_taken_is_one_line_and_exit_code_2(flows: Path, here: str, run: Run) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = str(other.getsockname()[1])
        code, printed, error = run("worker", "flows", "--port", port)
    assert (code, printed) == (2, "")
    assert error.startswith(f"continuum: cannot answer health checks on 127.0.0.1 port {port}: ")
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (
            ["--url", "postgresql://me:secret@127.0.0.1:1/x"],
            1,
            "cannot reach Postgres at postgresql://me:***@127.0.0.1:1/x",
        ),
        (["--url", "mysql://x"], 2, "has the scheme 'mysql'"),
        (["--url", "postgresql://127.0.0.1:1/x", "--home", "there"], 2, "name two databases"),
        (["--schema", "no schema"], 2, "no schema"),
        (["--lease", "3"], 2, "lease (3.0 s) must be at least twice heartbeat (2.0 s)"),
        (["--threads", "0"], 2, "argument --threads: it is a whole number of at least 1, not '0'"),
        (["--poll", "often"], 2, "argument --poll: it is a number of seconds, not 'often'"),
        (["--prot", "8080"], 2, "unrecognized arguments: --prot 8080; did you mean --port?"),
        (["--processes", "2", "--lease", "3"], 2, "lease (3.0 s)"),
        (["--port", "70000"], 2, "70000 is not a port"),
        (
            ["--port", "65535", "--processes", "2"],
            2,
            "65536 is not a port: a port is 1 to 65535, and each process",
        ),
    ],
)
def test_what_cannot_be_used_is_told_in_one_line(
    flows: Path, here: str, run: Run, arguments: list[str], code: int, says: str
) -> None:
    ended, printed, error = run("worker", "flows", *arguments)
    assert (ended, printed) == (code, "")
    assert says in error.splitlines()[-1]


def test_a_setting_of_the_environment_that_cannot_be_used_is_told_too(
    flows: Path, here: str, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CONTINUUM_CACHE", "much")
    assert run("worker", "flows") == (2, "", "continuum: CONTINUUM_CACHE is a whole number: got 'much'\n")


def test_a_schema_that_is_not_up_to_date_is_refused_on_request(flows: Path, empty_database: str, run: Run) -> None:
    code, printed, error = run("worker", "flows", "--no-migrate", "--url", empty_database)
    assert (code, printed) == (1, "")
    assert "run `continuum db migrate`" in error


def test_every_setting_has_an_option_but_the_one_that_is_an_object() -> None:
    assert {*worker._SETTINGS} == {field.name for field in dataclasses.fields(WorkerSettings)} - {"retry"}


@at_length
def test_two_processes_keep_running_and_one_that_is_killed_is_started_anew(
    flows: Path, program: Start, run: Run
) -> None:
    port = free_ports(2)
    one = program("worker", "flows", "--processes", "2", "--port", str(port))
    ready = one.says("is ready", times=2)
    assert {got(port + n, "/readyz")[0] for n in (0, 1)} == {200}
    pid = int(ready[1].split()[2])
    assert pid != one.process.pid
    os.kill(pid, signal.SIGKILL)
    one.says("was killed by SIGKILL; it is started anew")
    again = one.says("is ready", times=3)
    assert len({line.split()[2] for line in again}) == 3
    assert run("start", "batch_flow", "3", "--wait=30") == (0, "6\n", "")
    one.signal(signal.SIGTERM)
    assert one.ends() == 0
    assert len(one.says("continuum.worker: stopped")) == 2
    assert "Traceback" not in one.said


@at_length
def test_processes_whose_supervisor_is_killed_drain(flows: Path, program: Start) -> None:
    one = program("worker", "flows", "--processes", "2")
    one.says("is ready", times=2)
    one.signal(signal.SIGKILL)
    one.says("the supervisor is gone", times=2)
    one.says("continuum.worker: stopped", times=2)


@at_length
def test_a_second_signal_kills_processes_that_hang(flows: Path, program: Start, run: Run) -> None:
    one = program("worker", "slow_flows", "--processes", "2", "--drain", "600")
    one.says("is ready", times=2)
    assert run("start", "hanging")[0] == 0
    until((flows / "begun").exists)
    one.signal(signal.SIGINT)
    one.says("asked to stop")
    one.signal(signal.SIGTERM)
    assert one.ends() == 143


def test_processes_that_do_not_end_in_time_are_killed(
    flows: Path, here: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def start(journal: Any) -> None:
        await journal.start([NewRoot("h", "hanging", 1, b"null")])

    def stop() -> None:
        until((flows / "begun").exists)
        os.kill(os.getpid(), signal.SIGTERM)

    made(here, start)
    monkeypatch.setattr(supervisor, "BEYOND_DRAIN_S", 0.1)
    stopping = threading.Thread(target=stop)
    stopping.start()
    before = signal.getsignal(signal.SIGTERM)
    code = supervisor.supervise(
        1, lambda _, descriptor: ["worker", f"--supervised={descriptor}", "slow_flows"], drain_s=0.1
    )
    stopping.join()
    assert code == 1
    assert signal.getsignal(signal.SIGTERM) == before
    assert "killed, for they had not ended within 0.2 s" in caplog.text


def test_what_is_wrong_with_a_module_is_told_by_one_process_only(flows: Path, program: Start) -> None:
    one = program("worker", "flws", "--processes", "3")
    assert one.ends() == 2
    assert one.lines == [
        "continuum: there is no module 'flws' in the working directory or PYTHONPATH; did you mean 'flows'?\n"
    ]


@pytest.mark.skipif(not os.environ.get("CONTINUUM_LONG"), reason="at length: CONTINUUM_LONG=1")
def test_processes_that_never_can_be_started_are_given_up(flows: Path, program: Start) -> None:
    one = program("worker", "flows", "--processes", "2", "--url", "postgresql://127.0.0.1:1/x")
    assert one.ends() == 1
    assert len(one.says("cannot reach Postgres")) == 3
    assert one.lines[-1].endswith("no worker process can be started: tried 3 times in a row\n")


def test_help_of_every_command_has_an_example(capsys: pytest.CaptureFixture[str], run: Run) -> None:
    for command in (
        ["worker"],
        ["start"],
        ["signal"],
        ["cancel"],
        *(["runs", verb] for verb in ("list", "show", "tree")),
    ):
        code, printed, error = run(*command, "--help")
        assert (code, error) == (0, "")
        assert "example: continuum" in printed


pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there are no signals on Windows")
