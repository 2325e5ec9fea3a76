"""The journal on Postgres has all that the engine knows of storage."""

from continuum._journal.journal import PostgresJournal
from continuum._journal.protocol import Journal


def on_postgres(journal: PostgresJournal) -> Journal:
    return journal
