"""``continuum db``: what it prints, and the exit codes that scripts rely on."""

import os
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from continuum.cli import main
from continuum.embedded import Server
from tests.embedded.harness import data, has_stopped, query, until
from tests.length import at_length

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    def once(*arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        code = main(list(arguments))
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return once


@pytest.fixture
def at_home(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A warm home folder that the command finds by its environment."""
    monkeypatch.setenv("CONTINUUM_HOME", str(home))
    yield home
    Server(home).stop()


def test_a_server_is_started_kept_shown_and_stopped(run: Run, at_home: Path) -> None:
    assert run("db", "status")[:2] == (1, f"stopped\n  home:        {at_home}\n")
    code, printed, _ = run("db", "start", "--set", "fsync=off")
    assert code == 0
    assert "It is kept until `continuum db stop`" in printed
    code, url, _ = run("db", "url")
    assert code == 0
    assert query(url.strip(), "SHOW fsync") == [("off",)]
    code, printed, _ = run("db", "status")
    assert code == 0
    rows = dict(line.split(":", 1) for line in printed.splitlines()[1:])
    rows = {name.strip(): value.strip() for name, value in rows.items()}
    assert (rows["home"], rows["data"]) == (str(at_home), str(data(at_home)))
    assert (rows["url"], rows["connections"], rows["kept"][:3]) == (url.strip(), "0", "yes")
    code, printed, _ = run("db", "start")
    assert code == 0
    assert "It ran already" in printed
    assert run("db", "stop") == (0, f"stopped in {at_home}\n", "")
    assert run("db", "stop") == (0, f"not running in {at_home}\n", "")
    assert run("db", "status")[0] == 1


def test_url_prints_a_hint_and_no_url_if_nothing_runs(run: Run, at_home: Path) -> None:
    code, printed, error = run("db", "url")
    assert (code, printed) == (1, "")
    assert error == (
        f"continuum: the embedded Postgres in {at_home} does not run: `continuum db start` starts it\n"
    )


def test_stop_says_that_it_closed_connections(run: Run, at_home: Path) -> None:
    import psycopg

    url = Server(at_home).start()
    with psycopg.connect(url) as connection:
        assert run("db", "stop") == (0, f"stopped in {at_home}; it had 1 connection, now closed\n", "")
        connection.close()


@at_length
def test_the_server_that_start_keeps_outlives_the_command(at_home: Path) -> None:
    for verb in ("start", "status", "stop"):
        done = subprocess.run([sys.executable, "-m", "continuum", "db", verb], capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, "")
    assert has_stopped(at_home)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--set", "no_such=1"], 'no_such=1: unrecognized configuration parameter "no_such"'),
        (["--set", "fsync"], "--set fsync is not NAME=VALUE"),
        (["--port", "99999"], "99999 is not a port"),
    ],
)
def test_a_wrong_configuration_is_one_line_and_exit_code_2(
    run: Run, at_home: Path, arguments: list[str], says: str
) -> None:
    code, printed, error = run("db", "start", *arguments)
    assert (code, printed) == (2, "")
    assert says in error
    assert error.startswith("continuum: ")
    assert error.count("\n") == 1
    until(lambda: has_stopped(at_home))


@pytest.mark.parametrize("arguments", [[], ["db"], ["db", "fly"], ["db", "start", "--port", "x"]])
def test_wrong_usage_is_exit_code_2(run: Run, arguments: list[str]) -> None:
    code, printed, error = run(*arguments)
    assert (code, printed) == (2, "")
    assert error.startswith("continuum: ")
    assert error.count("\n") == 1


def test_migrate_uses_the_embedded_server_and_says_what_it_did(run: Run, at_home: Path) -> None:
    code, printed, error = run("db", "migrate", "--schema", "mine")
    assert (code, error) == (0, "")
    assert "applied 0001" in printed
    assert run("db", "migrate", "--schema", "mine") == (
        0,
        f"database embedded in {at_home}\nschema mine is up to date\n",
        "",
    )
    with Server(at_home, idle_stop=0.1).running() as url:
        assert query(url, "SELECT count(*) > 0 FROM pg_tables WHERE schemaname = 'mine'") == [(True,)]


def test_migrate_prefers_the_url_given_then_that_of_the_environment(
    run: Run, at_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CONTINUUM_SCHEMA", "theirs")
    monkeypatch.setenv("CONTINUUM_DATABASE_URL", "postgresql://127.0.0.1:1/unreachable")
    code, _, error = run("db", "migrate")
    assert code == 1
    assert "unreachable" in error
    assert error.count("\n") == 1
    url = Server(at_home).start()
    code, printed, _ = run("db", "migrate", "--url", url)
    assert code == 0
    assert "schema theirs is now up to date" in printed
    assert run("db", "migrate", "--home", str(at_home))[1].endswith("schema theirs is up to date\n")
    assert "CONTINUUM_DATABASE_URL is set" in run("db", "status")[1]


def test_roles_prints_sql_for_the_schema(run: Run) -> None:
    code, printed, _ = run("db", "roles", "--schema", "mine")
    assert code == 0
    assert "mine" in printed
    assert run("db", "roles", "--schema", "no schema")[0] == 2


def test_what_nobody_thought_of_is_one_line_too(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("two\nlines")

    monkeypatch.setattr("continuum.embedded.Server", fail)
    assert run("db", "status") == (1, "", "continuum: RuntimeError: two lines\n")
    with pytest.raises(RuntimeError):
        run("--debug", "db", "status")


def test_help_comes_at_once_and_imports_neither_the_driver_nor_pydantic() -> None:
    code = (
        "import sys; from continuum.cli import main; main(['--help']);"
        "print([name for name in ('psycopg', 'pydantic', 'asyncio', 'continuum.embedded') if name in sys.modules])"
    )
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    times: list[float] = []
    for _ in range(3):  # of the processor's time, so that other programs do not count
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment
        )
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        times.append(after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime)
    assert "db" in done.stdout
    assert done.stdout.splitlines()[-1] in {"[]", "['asyncio']"}
    assert min(times) < 0.3


@pytest.mark.parametrize(
    "arguments",
    [["migrate", "--url", ""], ["migrate", "--schema", " "], ["status", "--home", ""], ["roles", "--schema", ""]],
)
def test_an_empty_value_is_wrong_usage_and_not_the_default(run: Run, arguments: list[str]) -> None:
    code, printed, error = run("db", *arguments)
    assert (code, printed) == (2, "")
    assert f"argument {arguments[1]}: it is empty" in error


def test_a_start_with_other_settings_than_the_running_server_has_is_refused(run: Run, at_home: Path) -> None:
    Server(at_home).start()
    code, printed, error = run("db", "start", "--set", "work_mem=5MB", "--port", "5439")
    assert (code, printed) == (1, "")
    assert "work_mem=5MB (the server has its default), port=5439 (the server has none); stop it by" in error
    assert error.count("\n") == 1


def test_a_start_that_was_stopped_meanwhile_says_nothing_else(
    run: Run, at_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = Server.start
    monkeypatch.setattr(Server, "start", lambda server: (start(server), server.stop()))
    code, printed, error = run("db", "start")
    assert (code, printed) == (1, "")
    assert "stopped by another command meanwhile" in error


def test_connections_that_cannot_be_counted_are_unknown(
    run: Run, at_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Server(at_home).start()
    monkeypatch.setattr(Server, "connections", lambda _: None)
    assert "connections: unknown" in run("db", "status")[1]
    assert "how many connections it had is unknown" in run("db", "stop")[1]


def test_migrate_names_the_database_and_shows_that_the_embedded_server_is_used(
    run: Run, at_home: Path, caplog: pytest.LogCaptureFixture
) -> None:
    url = Server(at_home).start()
    assert run("db", "migrate")[1].startswith(f"database embedded in {at_home}\n")
    assert f"using the embedded Postgres {Server(at_home).status().version} that runs in" in caplog.text
    assert run("db", "migrate", "--url", f"{url}&password=secret")[1].startswith("database postgresql://postgres@")


def test_a_terminal_that_cannot_show_a_name_or_is_closed_is_no_error(at_home: Path) -> None:
    odd = at_home.rename(at_home.with_name("hömé"))
    environment = {**os.environ, "PYTHONIOENCODING": "ascii", "CONTINUUM_HOME": str(odd)}
    status = [sys.executable, "-m", "continuum", "db", "status"]
    done = subprocess.run(status, env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (1, "")
    assert "h\\xf6m\\xe9" in done.stdout
    closed = subprocess.run(
        ["sh", "-c", '"$@" >&-', "sh", *status], env=environment, capture_output=True, text=True
    )
    assert (closed.returncode, closed.stderr) == (1, "")
