"""Real databases for tests: one server, one migrated template, a copy for each test.

The rule: any number of processes share the server, test after test, and nobody waits for anybody. What a test run
that was killed has left is dropped by the next one.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import secrets
import tempfile
from collections.abc import Generator, Mapping
from pathlib import Path

from continuum._journal import databases
from continuum.embedded import TEST_SETTINGS, Server

__all__ = ["Databases"]

PREFIX = "continuum_test_"
IDLE_STOP_S = 10.0  # so that the next test run finds it warm


class Databases:
    """Makes databases on the server at ``url``. The role there needs the right to create databases.

    >>> with Databases.found() as databases, databases.fresh() as url:  # doctest: +SKIP
    ...     with continuum.connect_sync(url) as client:
    ...         ...
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self._template: str | None = None
        self._numbers = itertools.count(1)
        self._mark = secrets.token_hex(4)

    @classmethod
    @contextlib.contextmanager
    def found(cls, environ: Mapping[str, str] | None = None) -> Generator[Databases]:
        """Give those of CONTINUUM_TEST_DATABASE_URL, else those of an embedded server that is held for the block.

        It lies in CONTINUUM_TEST_HOME, else in a folder of the user's among the temporary files. It is fast and
        not safe: a crash of the machine may ruin it, and then the folder can be deleted.
        """
        environ = os.environ if environ is None else environ
        if url := environ.get("CONTINUUM_TEST_DATABASE_URL"):
            yield cls(url)
            return
        home = Path(environ.get("CONTINUUM_TEST_HOME") or _own_folder())
        with Server(home, TEST_SETTINGS, idle_stop=IDLE_STOP_S).running() as url:
            made = cls(url)
            made._drop_left_behind()
            yield made

    @contextlib.contextmanager
    def fresh(self) -> Generator[str]:
        """Give the url of a database with our tables and nothing in them, dropped at the end of the block."""
        if self._template is None:
            self._template = databases.template(self.url)
        name = f"{PREFIX}{os.getpid()}_{self._mark}_{next(self._numbers)}"
        url = databases.copied(self.url, self._template, name)
        try:
            yield url
        finally:
            databases.dropped(self.url, name)

    def _drop_left_behind(self) -> None:
        """Drop databases of processes that are gone; only for a server that this machine alone uses."""
        for name in databases.databases(self.url):
            pid = name.removeprefix(PREFIX).partition("_")[0]
            if name.startswith(PREFIX) and pid.isdecimal() and not _lives(int(pid)):
                databases.dropped(self.url, name)


def _own_folder() -> Path:
    """Return a folder of this user's, for this release. Raises ``PermissionError`` if it is another's."""
    folder = Path(tempfile.gettempdir()) / f"continuum-tests-{os.getuid()}-{databases.release()}"
    folder.mkdir(mode=0o755, exist_ok=True)  # for root's server runs under another account
    if folder.is_symlink() or folder.stat().st_uid != os.getuid():
        raise PermissionError(f"{folder} belongs to somebody else: say another with CONTINUUM_TEST_HOME")
    return folder


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
