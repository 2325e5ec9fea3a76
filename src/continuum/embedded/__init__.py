"""The Postgres that comes along: a private server in a folder, for development, tests and one machine.

    with Server(".continuum").running() as url:
        ...

The rule: only the binaries come from a package; their life is ours (see ``supervisor``), and production gives a
URL instead. Nothing outside the home folder is changed, but for root: what the server's account could not reach
goes below ``/var/lib/continuum-embedded`` and stays there. How to use it: ``docs/embedded.md``.
"""

from continuum.embedded.server import Server, Status
from continuum.embedded.settings import DEFAULT_SETTINGS, TEST_SETTINGS
from continuum.embedded.trouble import EmbeddedError

__all__ = ["DEFAULT_SETTINGS", "TEST_SETTINGS", "EmbeddedError", "Server", "Status"]
