"""What text a journal can hold: the same for every journal, and Postgres sets the bounds."""

from __future__ import annotations


def is_storable(text: str) -> bool:
    """Tell whether Postgres can hold ``text``: if not, no row has it."""
    return "\0" not in text and not any("\ud800" <= char <= "\udfff" for char in text)
