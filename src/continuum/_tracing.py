"""Trace context: what ties a run and all below it to the request that they began with.

The rule: a traceparent is text in the form of W3C, kept with the run and never interpreted. OpenTelemetry is asked
only if the application has imported it; it is never imported here.
"""

from __future__ import annotations

import re
import sys
from typing import Any

from continuum.errors import InvalidSetting

__all__ = ["attach", "checked_traceparent", "current_traceparent"]

_FORM = re.compile(r"00-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})", re.ASCII)
FORM = "00-<32 hex digits>-<16 hex digits>-<2 hex digits>, in small letters and not all zeros"


def checked_traceparent(traceparent: object) -> str:
    """Return ``traceparent`` if it is one. Raises ``InvalidSetting`` with the form that it has."""
    if not isinstance(traceparent, str):
        kind = type(traceparent).__name__
        raise TypeError(f"traceparent is a str of the form {FORM}: got {traceparent!r} of type {kind}")
    if _FORM.fullmatch(traceparent) is None:
        raise InvalidSetting(f"traceparent has the form {FORM}: got {traceparent[:80]!r}")
    return traceparent


def current_traceparent() -> str | None:
    """Return the traceparent of the current span of OpenTelemetry, or None without one."""
    tracing: Any = sys.modules.get("opentelemetry.trace")
    if tracing is None:
        return None
    span = tracing.get_current_span().get_span_context()
    if not span.is_valid:
        return None
    return f"00-{span.trace_id:032x}-{span.span_id:016x}-{span.trace_flags:02x}"


def attach(traceparent: str | None) -> None:
    """Let the running context be part of that trace, for good, if the application uses OpenTelemetry.

    To be called in a context that ends with its work: nothing is detached.
    """
    tracing: Any = sys.modules.get("opentelemetry.trace")
    contexts: Any = sys.modules.get("opentelemetry.context")
    if tracing is None or contexts is None or traceparent is None:
        return
    found = _FORM.fullmatch(traceparent)
    if found is None:  # a row that no release has written
        return
    trace_id, span_id, flags = (int(part, 16) for part in found.groups())
    span = tracing.SpanContext(trace_id, span_id, is_remote=True, trace_flags=tracing.TraceFlags(flags))
    contexts.attach(tracing.set_span_in_context(tracing.NonRecordingSpan(span)))
