"""A journal in memory that keeps the protocol: for tests of workflows, and to simulate clusters."""
