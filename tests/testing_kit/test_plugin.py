"""The pytest plugin: its fixtures as tests of users have them, in test runs of their own."""

from __future__ import annotations

import doctest
import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import continuum
from continuum import testing
from continuum._journal import databases as statements
from continuum.testing import Databases, SyncWorkflowEnvironment, WorkflowEnvironment, histories
from tests.databases import Servers
from tests.length import at_length
from tests.testing_kit import flows
from tests.testing_kit.flows import year_flow

FLOWS = """
import asyncio
from continuum import activity, workflow

@activity
async def send(address: str) -> str:
    raise RuntimeError("really")

@workflow
async def week_flow(address: str) -> str:
    await asyncio.sleep(7 * 24 * 3600)
    return await send(address)
"""
ASYNC_TESTS = """
import asyncio
from datetime import timedelta
import pytest
import shop_flows
from shop_flows import send, week_flow

pytestmark = pytest.mark.continuum(shop_flows)

@pytest.mark.parametrize("number", range(3))
async def test_a_week(continuum_env, number):
    continuum_env.replace(send, lambda address: f"sent {number}")
    run = await continuum_env.start(week_flow, "ada")
    assert await run.result() == f"sent {number}"
    assert continuum_env.now - continuum_env.started == timedelta(days=7)

async def test_left_open(continuum_env):
    await continuum_env.start(week_flow, "ada")
    continuum_env.replace(send, lambda address: continuum_env.sleep(60))
    await continuum_env.sleep(timedelta(days=7, seconds=5))

async def test_fails_at_its_end(continuum_env):
    def fail():
        raise KeyError("planned")

    continuum_env.after(5, fail)
    sleeping = asyncio.ensure_future(continuum_env.sleep(10))
    while not continuum_env._opened or continuum_env._opened.passing._actions:
        await asyncio.sleep(0)
    sleeping.cancel()
    await asyncio.sleep(0)

async def test_not_used(continuum_env):
    pass

async def test_only_prepared(continuum_env):
    continuum_env.replace(send, lambda address: "sent")
    continuum_env.after(5, lambda: None)
"""
SYNC_TESTS = """
import pytest, shop_flows
from shop_flows import send, week_flow

@pytest.mark.continuum(shop_flows, replay_every_step=True)
def test_a_week(continuum_env_sync):
    continuum_env_sync.replace(send, lambda address: "sent")
    assert continuum_env_sync.start(week_flow, "ada").result() == "sent"

def test_unmarked(continuum_env_sync):
    pass
"""
DATABASE_TESTS = """
import pytest, continuum

@pytest.mark.parametrize("number", range(2))
def test_a_database_of_its_own(continuum_pg, number):
    with continuum.connect_sync(continuum_pg) as client:
        assert client.list_runs() == []
        assert client.definitions() == []
"""


def pytest_in(folder: Path, *options: str, **environ: str) -> str:
    """Run pytest in a process of its own and return what it says."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:randomly", *options]
    done = subprocess.run(
        [*command, "-p", "continuum.testing.pytest_plugin"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(folder), **environ},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.stdout + done.stderr


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "shop_flows.py").write_text(FLOWS)
    (tmp_path / "pytest.ini").write_text(
        "[pytest]\nasyncio_mode = auto\nasyncio_default_fixture_loop_scope = function\n"
        "filterwarnings = error\naddopts = --strict-markers\n"
    )
    return tmp_path


@at_length
def test_async_tests_have_an_environment_each(folder: Path) -> None:
    (folder / "test_shop.py").write_text(ASYNC_TESTS)
    said = pytest_in(folder)
    assert "7 passed, 1 error" in said, said
    assert "KeyError: 'planned'" in said


def test_plain_tests_need_no_async_plugin_and_are_told_what_is_missing(folder: Path) -> None:
    (folder / "test_shop.py").write_text(SYNC_TESTS)
    (folder / "pytest.ini").write_text("[pytest]\nfilterwarnings = error\n")
    said = pytest_in(folder, "-p", "no:asyncio")
    assert "1 passed" in said, said
    assert "mark the test with @pytest.mark.continuum(flows)" in said


@pytest.mark.skipif(not os.environ.get("CONTINUUM_LONG"), reason="at length: CONTINUUM_LONG=1")
def test_a_database_for_each_test_on_a_server_that_is_given(folder: Path, servers: Servers) -> None:
    (folder / "test_databases.py").write_text(DATABASE_TESTS)
    said = pytest_in(folder, "-n", "2", CONTINUUM_TEST_DATABASE_URL=servers.url("embedded"))
    assert "2 passed" in said, said


def test_databases_are_copies_of_one_template_and_gone_afterwards(servers: Servers) -> None:
    with Databases.found({"CONTINUUM_TEST_DATABASE_URL": servers.url("embedded")}) as databases:
        with databases.fresh() as one, databases.fresh() as other:
            assert one != other
            with continuum.connect_sync(one, migrate=False) as client:
                assert client.list_runs() == []
        with pytest.raises(continuum.DatabaseUnreachable):
            continuum.connect_sync(one)


def test_many_who_want_a_template_at_once_get_the_same_one(servers: Servers) -> None:
    url = servers.url("embedded")
    statements.dropped(url, statements.template(url))
    with ThreadPoolExecutor(4) as pool:
        names = {made.result() for made in [pool.submit(statements.template, url) for _ in range(4)]}
    (name,) = names
    assert [found for found in statements.databases(url) if found.startswith(name)] == [name]


def test_what_killed_test_runs_have_left_is_dropped(servers: Servers) -> None:
    databases = Databases(servers.url("embedded"))
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    with databases.fresh() as kept:
        name = f"continuum_test_{ended.pid}_left_1"
        statements.copied(databases.url, statements.template(databases.url), name)
        assert name in statements.databases(databases.url)
        databases._drop_left_behind()
        left = statements.databases(databases.url)
        assert name not in left
        with continuum.connect_sync(kept, migrate=False) as client:
            assert client.list_runs() == []


# --- the fixtures in this very test run


@pytest.mark.continuum(flows)
async def test_the_fixture_is_an_environment(continuum_env: WorkflowEnvironment) -> None:
    run = await continuum_env.start(year_flow, 2)
    assert await run.result() == 2


@pytest.mark.continuum(year_flow)
def test_the_sync_fixture_is_one_too(continuum_env_sync: SyncWorkflowEnvironment) -> None:
    assert continuum_env_sync.start(year_flow, 2).result() == 2


def test_the_plugin_imports_nothing_that_a_test_did_not_ask_for() -> None:
    code = (
        "import sys, pytest, continuum; before = set(sys.modules); import continuum.testing.pytest_plugin;"
        "print(*sorted(set(sys.modules) - before))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["continuum.testing", "continuum.testing.pytest_plugin"]


# --- the reference


def test_every_public_name_exists_and_is_in_the_documentation() -> None:
    page = Path(__file__).parents[2] / "docs" / "testing.md"
    words = set(re.findall(r"\w+", page.read_text(encoding="utf-8")))
    assert [name for name in testing.__all__ if not hasattr(testing, name) or name not in words] == []
    with pytest.raises(AttributeError, match="no attribute 'Environment'"):
        _ = testing.Environment  # type: ignore[attr-defined]


def test_the_examples_of_the_kit_run() -> None:
    found = doctest.testmod(histories)
    assert found.attempted > 3
    assert found.failed == 0
