"""Which database is used: the one that was named, else that of the environment, else the embedded server.

The rule: what is given wins over the environment, and whoever did not choose a database is told which one it is.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import AsyncGenerator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from continuum.errors import InvalidSetting

__all__ = ["Database"]

logger = logging.getLogger("continuum")
_YES = ("1", "true", "yes", "on")
_NO = ("0", "false", "no", "off")


@dataclass(frozen=True, slots=True)
class Database:
    """Where the journal lies. Without ``url`` it is in the embedded server of the folder ``home``."""

    url: str | None
    home: str | Path | None
    schema: str
    listen_url: str | None
    migrate: bool

    @classmethod
    def choose(
        cls,
        url: str | None,
        *,
        home: str | Path | None = None,
        schema: str | None = None,
        listen_url: str | None = None,
        migrate: bool | None = None,
        environ: Mapping[str, str] | None = None,
    ) -> Database:
        """Return what is given, completed by the environment. A ``home`` asks for the embedded server.

        Raises ``InvalidSetting`` for both a url and a home, and for what CONTINUUM_MIGRATE cannot mean.
        """
        environ = os.environ if environ is None else environ
        if url is not None and home is not None:
            raise InvalidSetting("url= and home= name two databases: home= is for the embedded server; give one")
        if url is None and home is None:
            url = environ.get("CONTINUUM_DATABASE_URL") or None
        return cls(
            url=url,
            home=home,
            schema=schema if schema is not None else environ.get("CONTINUUM_SCHEMA") or "continuum",
            listen_url=listen_url if listen_url is not None else environ.get("CONTINUUM_LISTEN_URL") or None,
            migrate=migrate if migrate is not None else _truth("CONTINUUM_MIGRATE", environ, default=True),
        )

    @asynccontextmanager
    async def reached(self) -> AsyncGenerator[str, None]:
        """Give the url; if it is the embedded server's, that one runs for the block. Raises ``EmbeddedError``."""
        if self.url is not None:
            yield self.url
            return
        from continuum.embedded import Server

        server = Server(self.home)
        logger.info("no database url is given, so the embedded Postgres in %s is used", server.home)
        held = contextlib.ExitStack()
        pool = ThreadPoolExecutor(1, "continuum-embedded")  # of its own: a first start takes a while
        starting = pool.submit(held.enter_context, server.running())
        pool.shutdown(wait=False)
        try:
            url = await asyncio.wrap_future(starting)
        except asyncio.CancelledError:
            starting.add_done_callback(lambda _: held.close())  # it cannot be interrupted; let go what it took
            raise
        with held:
            yield url


def _truth(name: str, environ: Mapping[str, str], *, default: bool) -> bool:
    given = environ.get(name, "").strip().lower()
    if given and given not in (*_YES, *_NO):
        raise InvalidSetting(f"{name} is {given!r}; it is one of {', '.join((*_YES, *_NO))}")
    return given in _YES if given else default
