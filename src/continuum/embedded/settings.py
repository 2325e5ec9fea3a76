"""The settings the embedded server starts with.

The rule: what a default gives up is memory or features, never durability. Only ``TEST_SETTINGS``, which somebody
has to ask for, turn fsync off.
"""

from __future__ import annotations

from collections.abc import Mapping

from continuum.embedded.trouble import EmbeddedError

__all__ = ["DEFAULT_SETTINGS", "TEST_SETTINGS"]

DEFAULT_SETTINGS: Mapping[str, str] = {
    "shared_buffers": "64MB",
    "max_connections": "200",
    "jit": "off",  # compiling costs more than our short statements take
    "fsync": "on",
    "full_page_writes": "on",
    "synchronous_commit": "on",
    "wal_level": "minimal",  # nobody replicates from it
    "max_wal_senders": "0",
    "max_wal_size": "256MB",
    "autovacuum_naptime": "10s",  # an inbox is all inserts and deletes
    "log_checkpoints": "off",
    "logging_collector": "off",  # its log is what the supervisor reads when it does not start
}
"""What a development machine wants: small, quiet, durable."""

TEST_SETTINGS: Mapping[str, str] = {"fsync": "off", "full_page_writes": "off", "synchronous_commit": "off"}
"""For databases that may be lost: pass them as ``settings`` in tests. A crash of the machine ruins the data."""

_OURS = {
    "port": "use port= or --port",
    "listen_addresses": "use port= or --port to have it listen on 127.0.0.1",
    "unix_socket_directories": "the socket lies in the data folder",
    "data_directory": "use home=, CONTINUUM_HOME or --home",
    "config_file": "pass the settings themselves",
    "hba_file": "access is decided by the server's owner",
    "logging_collector": "the log is postgres.log in the home folder",
    "log_destination": "the log is postgres.log in the home folder",
}


def checked(settings: Mapping[str, str] | None) -> dict[str, str]:
    """Return the settings as given, or refuse those that are not the user's to choose."""
    if not isinstance(settings, Mapping | None):
        raise EmbeddedError(f"settings={settings!r} is not a mapping: pass one such as {{'work_mem': '16MB'}}")
    given: dict[str, str] = {}
    for name, value in (settings or {}).items():
        if not isinstance(name, str) or not isinstance(value, str):
            raise EmbeddedError(
                f"the setting {name!r}: {value!r} is not a pair of strings: pass '{value}', quoted"
            )
        given[name.lower()] = value
    for name, value in given.items():
        if name in _OURS:
            raise EmbeddedError(f"the setting {name} cannot be passed: {_OURS[name]}")
        if not name or "=" in name or "\0" in name + value:
            raise EmbeddedError(f"{name!r} is not the name of a setting: pass names such as 'work_mem'")
    return given
