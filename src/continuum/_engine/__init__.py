"""The engine: asyncio services that bring runs forward, between the pure core and the journal."""
