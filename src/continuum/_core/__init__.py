"""The deterministic core: events in, commands out; no clock, no database, no host event loop."""
