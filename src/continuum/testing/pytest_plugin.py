"""Fixtures for pytest: an environment with time that jumps, and a real database of the test's own.

The rule: pytest loads this at every start, so nothing is imported before a test asks for it. Its fixtures are
plain ones and serve tests of any async plugin: the environment opens itself in the loop of the test that uses it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, cast

import pytest

if TYPE_CHECKING:
    from continuum.testing.databases import Databases
    from continuum.testing.environment import WorkflowEnvironment
    from continuum.testing.sync import SyncWorkflowEnvironment

MARK = "continuum(*sources, **options): the modules or definitions of continuum_env, and its options"


def pytest_configure(config: pytest.Config) -> None:
    """Make the marker known."""
    config.addinivalue_line("markers", MARK)


@pytest.fixture
def continuum_env(request: pytest.FixtureRequest) -> Iterator[WorkflowEnvironment]:
    """A ``WorkflowEnvironment`` of what ``@pytest.mark.continuum(flows)`` names, for an async test."""
    from continuum.testing.environment import WorkflowEnvironment

    sources, options = _asked_for(request)
    env = WorkflowEnvironment(sources, **options)
    env._opens_itself = True
    yield env
    env._close_at_once()


@pytest.fixture
def continuum_env_sync(request: pytest.FixtureRequest) -> Iterator[SyncWorkflowEnvironment]:
    """A ``SyncWorkflowEnvironment`` of what ``@pytest.mark.continuum(flows)`` names, for a plain test."""
    from continuum.testing.sync import SyncWorkflowEnvironment

    sources, options = _asked_for(request)
    with SyncWorkflowEnvironment(sources, **options) as env:
        yield env


@pytest.fixture(scope="session")
def continuum_databases() -> Iterator[Databases]:
    """Where databases for tests are made: CONTINUUM_TEST_DATABASE_URL, else an embedded server."""
    from continuum.testing.databases import Databases

    with Databases.found() as found:
        yield found


@pytest.fixture
def continuum_pg(continuum_databases: Databases) -> Iterator[str]:
    """The url of a real database with our tables, the test's own: for ``connect`` and ``connect_sync``."""
    with continuum_databases.fresh() as url:
        yield url


def _asked_for(request: pytest.FixtureRequest) -> tuple[tuple[Any, ...], dict[str, Any]]:
    mark = request.node.get_closest_marker("continuum")
    if mark is None or not mark.args:
        pytest.fail(
            f"{request.fixturename} needs to know what to run: mark the test with @pytest.mark.continuum(flows), "
            f"or the module with pytestmark = pytest.mark.continuum(flows); flows is a module or a definition",
            pytrace=False,
        )
    sources: list[Any] = []
    for source in mark.args:  # a list is what the environments take, so a marker is given one too
        sources += cast("list[Any]", source) if isinstance(source, list) else [source]
    return tuple(sources), dict(mark.kwargs)
