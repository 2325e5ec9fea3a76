"""Keep workflow code deterministic: the names it must not use, found in its source and at its calls.

The rule: nothing is patched, and no guarded module is imported; one that nobody loaded cannot be in use.
"""

from __future__ import annotations

from continuum._core.guards.scan import scan
from continuum._core.guards.watch import Watch

__all__ = ["Watch", "scan"]
