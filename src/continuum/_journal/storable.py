"""What text a journal can hold: the same for every journal, and Postgres sets the bounds."""

from __future__ import annotations

import re

_UNSTORABLE = re.compile("[\0\ud800-\udfff]")


def is_storable(text: str) -> bool:
    """Tell whether Postgres can hold ``text``: if not, no row has it."""
    return _UNSTORABLE.search(text) is None
