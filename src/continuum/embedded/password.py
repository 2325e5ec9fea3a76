"""The password that a server with a port asks for.

The rule: it is made by us, lies in a file that only its owner can read, and never travels in the clear: Postgres
gets its SCRAM verifier. Over the unix socket there is none, for who can reach that may read the data anyway.
"""

from __future__ import annotations

import secrets
from pathlib import Path
from urllib.parse import quote

from continuum.embedded.files import read_note, write_note
from continuum.embedded.plan import Plan
from continuum.embedded.trouble import EmbeddedError


def password_file(plan: Plan) -> Path:
    return Path(plan.home) / "server.password"


def set_password(plan: Plan) -> None:
    """Give the server the password of the file, which is made if it is missing. Call it under the start lock."""
    path = password_file(plan)
    was_there = path.exists()
    if not was_there:
        write_note(path, secrets.token_urlsafe(24) + "\n")
    import psycopg
    from psycopg import sql

    password = read_note(path).strip()
    try:
        with psycopg.connect(plan.url, connect_timeout=30) as connection:
            verifier = connection.pgconn.encrypt_password(password.encode(), b"postgres", b"scram-sha-256")
            statement = sql.SQL("ALTER ROLE postgres PASSWORD {}").format(sql.Literal(verifier.decode()))
            connection.execute(statement)
    except psycopg.Error as error:
        if was_there and isinstance(error, psycopg.OperationalError):
            return  # all its connections are taken; it got this password when it started
        raise EmbeddedError(f"the server in {plan.data} did not take its password from {path}: {error}") from error


def password_url(plan: Plan) -> str | None:
    """Return the URL for 127.0.0.1, password included, if the server has a port and we may read the password."""
    if plan.port is None:
        return None
    try:
        password = read_note(password_file(plan)).strip()
    except OSError:
        return None
    return f"postgresql://postgres:{quote(password)}@127.0.0.1:{plan.port}/postgres"
