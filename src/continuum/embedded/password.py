"""The password that a server with a port asks for.

The rule: it is made by us, lies in a file that only its owner can read, and never travels in the clear: Postgres
gets its SCRAM verifier. Over the unix socket there is none, for who can reach that may read the data anyway.
"""

from __future__ import annotations

import os
import secrets
from pathlib import Path
from urllib.parse import quote

from continuum.embedded.plan import Plan
from continuum.embedded.trouble import EmbeddedError


def password_file(plan: Plan) -> Path:
    return Path(plan.home) / "server.password"


def set_password(plan: Plan) -> None:
    """Give the server the password of the file, which is made if it is missing. Call it under the start lock."""
    path = password_file(plan)
    if not path.exists():
        fresh = path.with_suffix(".new")
        fresh.unlink(missing_ok=True)
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with open(descriptor, "w", encoding="ascii") as file:
            file.write(secrets.token_urlsafe(24) + "\n")
        fresh.rename(path)
    import psycopg
    from psycopg import sql

    password = path.read_text(encoding="ascii").strip()
    try:
        with psycopg.connect(plan.url, connect_timeout=30) as connection:
            verifier = connection.pgconn.encrypt_password(password.encode(), b"postgres", b"scram-sha-256")
            statement = sql.SQL("ALTER ROLE postgres PASSWORD {}").format(sql.Literal(verifier.decode()))
            connection.execute(statement)
    except psycopg.Error as error:
        raise EmbeddedError(f"the server in {plan.data} did not take its password from {path}: {error}") from error


def password_url(plan: Plan) -> str | None:
    """Return the URL for 127.0.0.1, password included, if the server has a port and we may read the password."""
    if plan.port is None:
        return None
    try:
        password = password_file(plan).read_text(encoding="ascii").strip()
    except OSError:
        return None
    return f"postgresql://postgres:{quote(password)}@127.0.0.1:{plan.port}/postgres"
