"""Plain JSON text, for what the core itself writes and reads: payloads of entries, failures, reasons.

The standard library's: pydantic reads and writes the authors' values (see ``codec``) and is imported when the
first of them comes, for it takes longer to import than all else together.
"""

from __future__ import annotations

import json
from json.encoder import encode_basestring
from typing import Any, cast

_ENCODER = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))
_ALL_WHOLE = 2**53  # from here on floats have no fraction


def dump(value: Any) -> bytes:
    """Return ``value`` as JSON text in UTF-8. Raises ``ValueError`` for a lone surrogate."""
    if value.__class__ is str:  # nearly always: ids and keys, one or two a row
        return encode_basestring(value).encode()
    return _ENCODER.encode(value).encode()


def canonical(value: Any) -> Any:
    """Return plain JSON as it is whether it has been through a ``jsonb`` column or not.

    That keeps no order of names, spells a large number without an exponent, so that it is a whole one, and has no
    zero below zero.
    """
    if isinstance(value, dict):
        plain = cast("dict[str, Any]", value)
        return {name: canonical(plain[name]) for name in sorted(plain)}
    if isinstance(value, list):
        return [canonical(member) for member in cast("list[Any]", value)]
    if isinstance(value, float) and abs(value) >= _ALL_WHOLE:
        digits, _, power = repr(value).partition("e")
        whole, _, rest = digits.partition(".")
        return int(whole) if not power else int(whole + rest) * 10 ** (int(power) - len(rest))
    return 0.0 if isinstance(value, float) and value == 0.0 else value


def load(data: bytes) -> Any:
    """Return what JSON text holds. Raises ``ValueError`` if it is none, or nested too deep to read."""
    try:
        return json.loads(data)
    except RecursionError:
        raise ValueError("JSON nested too deep to read") from None
