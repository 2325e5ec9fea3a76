"""What is tried at length alone: ``CONTINUUM_LONG=1``, as continuous integration and ``make conformance`` have it.

The rule: a promise whose only test is marked so is one that a second of a contributor's minute would not buy.
"""

from __future__ import annotations

import os

import pytest

LONG = bool(os.environ.get("CONTINUUM_LONG"))
at_length = pytest.mark.skipif(not LONG, reason="at length: CONTINUUM_LONG=1")
