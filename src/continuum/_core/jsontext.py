"""Plain JSON text, for what the core itself writes and reads: payloads of entries, failures, reasons.

The standard library's: pydantic reads and writes the authors' values (see ``codec``) and is imported when the
first of them comes, for it takes longer to import than all else together.
"""

from __future__ import annotations

import json
from json.encoder import encode_basestring
from typing import Any

_ENCODER = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))


def dump(value: Any) -> bytes:
    """Return ``value`` as JSON text in UTF-8. Raises ``ValueError`` for a lone surrogate."""
    if value.__class__ is str:  # nearly always: ids and keys, one or two a row
        return encode_basestring(value).encode()
    return _ENCODER.encode(value).encode()


def load(data: bytes) -> Any:
    """Return what JSON text holds. Raises ``ValueError`` if it is none, or nested too deep to read."""
    try:
        return json.loads(data)
    except RecursionError:
        raise ValueError("JSON nested too deep to read") from None
